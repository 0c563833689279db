//! Pages that prompts may begin with: computed once, as long as there is room for them.
//!
//! A page is known by all the tokens up to its end and by whoever computed them: the version of an adapter, or the bare base.
//! What one version has computed is never another's.

use espalier_core::model::VirtualTokens;
use espalier_tensor::kv_cache::{BLOCK_SIZE, KvBlock, KvCacheShape, SequenceKvCache};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type BlockHash = [u8; 32];

#[derive(Default)]
pub struct PrefixCache {
    blocks: HashMap<BlockHash, CachedBlock>,
    /// By the time of their last use.
    lru_order: BTreeMap<u64, BlockHash>,
    clock: u64,
}

struct CachedBlock {
    block: Arc<KvBlock>,
    prefix_lengths: Arc<[usize]>,
    last_used: u64,
}

/// The keys of the full pages of these tokens, one after another.
fn block_hashes<'a>(version: &str, virtual_rows: usize, ids: &'a [u32]) -> impl Iterator<Item = BlockHash> + 'a {
    let mut hash = Sha256::new();
    hash.update(version);
    let mut hashed_tokens = 0;
    (1..).map_while(move |block_count: usize| {
        // Virtual rows are before the first token.
        let end = (block_count * BLOCK_SIZE).saturating_sub(virtual_rows);
        (end <= ids.len()).then(|| {
            ids[hashed_tokens..end].iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update([0]);
            hashed_tokens = end;
            hash.clone().finalize().into()
        })
    })
}

impl PrefixCache {
    /// How many pages are kept.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// What is known of the beginning of a prompt, and how many of its tokens that is; at least one is left to be computed.
    pub fn lookup(
        &mut self,
        version: &str,
        virtual_tokens: VirtualTokens,
        kv_cache_shape: KvCacheShape,
        prompt_ids: &[u32],
    ) -> Option<(SequenceKvCache, usize)> {
        let (mut blocks, mut prefix_lengths) = (Vec::new(), None);
        let mut used_keys = Vec::new();
        for key in block_hashes(version, virtual_row_count(virtual_tokens), &prompt_ids[..prompt_ids.len() - 1]) {
            let Some(cached) = self.blocks.get(&key) else { break };
            blocks.push(Arc::clone(&cached.block));
            prefix_lengths = Some(Arc::clone(&cached.prefix_lengths));
            used_keys.push(key);
        }
        self.touch(&used_keys);
        let cached_tokens = (blocks.len() * BLOCK_SIZE).saturating_sub(virtual_row_count(virtual_tokens));
        let prompt_virtual_tokens = if let VirtualTokens::Prompt(count) = virtual_tokens { count } else { 0 };
        let prefix_lengths = prefix_lengths.filter(|_| cached_tokens > 0)?;
        Some((
            SequenceKvCache::from_shared_blocks(
                kv_cache_shape,
                blocks,
                prompt_virtual_tokens + cached_tokens,
                prefix_lengths,
            ),
            cached_tokens,
        ))
    }

    /// Keeps the full pages of what has been computed.
    pub fn insert(&mut self, version: &str, virtual_tokens: VirtualTokens, kv_cache: &SequenceKvCache, ids: &[u32]) {
        let mut used_keys = Vec::new();
        for (key, block) in block_hashes(version, virtual_row_count(virtual_tokens), ids).zip(kv_cache.full_blocks()) {
            let new_entry = || CachedBlock {
                block: Arc::clone(block),
                prefix_lengths: Arc::clone(kv_cache.prefix_lengths()),
                last_used: 0,
            };
            self.blocks.entry(key).or_insert_with(new_entry);
            used_keys.push(key);
        }
        self.touch(&used_keys);
    }

    /// These were used last, the first of them the very last: without it the others are of no use.
    fn touch(&mut self, keys: &[BlockHash]) {
        for key in keys.iter().rev() {
            let Some(cached) = self.blocks.get_mut(key) else { continue };
            self.clock += 1;
            self.lru_order.remove(&cached.last_used);
            cached.last_used = self.clock;
            self.lru_order.insert(self.clock, *key);
        }
    }

    /// Forgets the page that was not used for the longest time; whether there was one.
    pub fn evict_lru(&mut self) -> bool {
        let Some((_, key)) = self.lru_order.pop_first() else { return false };
        self.blocks.remove(&key);
        true
    }
}

/// Rows that are remembered before a sequence's first token, at most.
pub fn virtual_row_count(virtual_tokens: VirtualTokens) -> usize {
    match virtual_tokens {
        VirtualTokens::Disabled => 0,
        VirtualTokens::Prompt(count) | VirtualTokens::Prefix(count) => count,
    }
}
