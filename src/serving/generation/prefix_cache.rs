//! LRU cache of full KV blocks, which lets a prompt reuse the prefix of an earlier one.
//!
//! A block is keyed by the hash of all tokens up to its end and of the adapter version that computed it, so adapters
//! never share blocks. Blocks that sequences use are not evicted: that would free no memory.

use espalier_core::model::VirtualTokens;
use espalier_tensor::kv_cache::{BLOCK_SIZE, KvBlock, KvCacheShape, SequenceKvCache};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub type BlockHash = [u8; 32];

/// Hashes of the full blocks of one sequence. The hasher is kept, so that every token is hashed once.
pub struct BlockHashes {
    hasher: Sha256,
    virtual_rows: usize,
    hashed_tokens: usize,
    hashes: Vec<BlockHash>,
}

impl BlockHashes {
    pub fn new(version: &str, virtual_tokens: VirtualTokens) -> Self {
        let virtual_rows = virtual_row_count(virtual_tokens);
        Self { hasher: Sha256::new_with_prefix(version), virtual_rows, hashed_tokens: 0, hashes: Vec::new() }
    }

    /// Returns the hashes of the full blocks of `ids`, which extend or shorten the tokens of earlier calls.
    pub fn extend(&mut self, ids: &[u32]) -> &[BlockHash] {
        let block_count = (ids.len() + self.virtual_rows) / BLOCK_SIZE;
        for block in self.hashes.len()..block_count {
            // Virtual rows precede the first token.
            let end = ((block + 1) * BLOCK_SIZE).saturating_sub(self.virtual_rows);
            ids[self.hashed_tokens..end].iter().for_each(|id| self.hasher.update(id.to_le_bytes()));
            self.hasher.update([0]);
            self.hashed_tokens = end;
            self.hashes.push(self.hasher.clone().finalize().into());
        }
        &self.hashes[..block_count]
    }
}

/// KV blocks of prompt prefixes by the hash of their tokens and adapter version, with LRU eviction.
#[derive(Default)]
pub struct PrefixCache {
    blocks: HashMap<BlockHash, CachedBlock>,
    /// Blocks by the clock value of their last use.
    lru_order: BTreeMap<u64, BlockHash>,
    clock: u64,
}

struct CachedBlock {
    block: KvBlock,
    prefix_lengths: Arc<[usize]>,
    last_used: u64,
}

impl PrefixCache {
    /// Number of cached blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns a KV cache of the longest cached prefix, and the number of its tokens. `hashes` are those of the blocks
    /// of the prompt without its last token, which is always computed.
    pub fn lookup(
        &mut self,
        hashes: &[BlockHash],
        virtual_tokens: VirtualTokens,
        kv_cache_shape: KvCacheShape,
    ) -> Option<(SequenceKvCache, usize)> {
        let cached: Vec<&CachedBlock> = hashes.iter().map_while(|hash| self.blocks.get(hash)).collect();
        let blocks: Vec<KvBlock> = cached.iter().map(|cached| cached.block.clone()).collect();
        let prefix_lengths = cached.last().map(|cached| Arc::clone(&cached.prefix_lengths));
        self.touch(&hashes[..blocks.len()]);
        let cached_tokens = (blocks.len() * BLOCK_SIZE).saturating_sub(virtual_row_count(virtual_tokens));
        let prefix_lengths = prefix_lengths.filter(|_| cached_tokens > 0)?;
        let rows = virtual_tokens.prompt_rows() + cached_tokens;
        Some((SequenceKvCache::from_shared_blocks(kv_cache_shape, blocks, rows, prefix_lengths), cached_tokens))
    }

    /// Inserts the full blocks of a KV cache.
    pub fn insert(&mut self, hashes: &[BlockHash], kv_cache: &SequenceKvCache) {
        let blocks = kv_cache.full_blocks();
        for (hash, block) in hashes.iter().zip(blocks) {
            let new_entry = || CachedBlock {
                block: block.clone(),
                prefix_lengths: Arc::clone(kv_cache.prefix_lengths()),
                last_used: 0,
            };
            self.blocks.entry(*hash).or_insert_with(new_entry);
        }
        self.touch(&hashes[..hashes.len().min(blocks.len())]);
    }

    /// Number of blocks that a sequence uses.
    pub fn pinned_blocks(&self) -> usize {
        self.blocks.values().filter(|cached| cached.block.is_shared()).count()
    }

    /// Marks the blocks of one prefix as used, its first block most recently: the others are useless without it.
    fn touch(&mut self, hashes: &[BlockHash]) {
        for hash in hashes.iter().rev() {
            let Some(cached) = self.blocks.get_mut(hash) else { continue };
            self.clock += 1;
            self.lru_order.remove(&cached.last_used);
            cached.last_used = self.clock;
            self.lru_order.insert(self.clock, *hash);
        }
    }

    /// Evicts the least recently used block that no sequence uses. Returns false if there is none.
    pub fn evict_lru(&mut self) -> bool {
        let is_unused = |hash: &BlockHash| self.blocks.get(hash).is_none_or(|cached| !cached.block.is_shared());
        let unused =
            self.lru_order.iter().find(|(_, hash)| is_unused(hash)).map(|(last_used, hash)| (*last_used, *hash));
        let Some((last_used, hash)) = unused else { return false };
        self.lru_order.remove(&last_used);
        self.blocks.remove(&hash);
        true
    }
}

/// KV cache rows before the first token of a sequence, at most.
pub fn virtual_row_count(virtual_tokens: VirtualTokens) -> usize {
    match virtual_tokens {
        VirtualTokens::Disabled => 0,
        VirtualTokens::Prompt(count) | VirtualTokens::Prefix(count) => count,
    }
}
