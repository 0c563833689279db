//! Pages that prompts may begin with: computed once, as long as there is room for them.
//!
//! A page is known by all the tokens up to its end and by whoever computed them: the version of an adapter, or the bare base.
//! What one version has computed is never another's.

use espalier_core::model::Virtual;
use espalier_tensor::past::{Form, PAGE, Page, Past};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

type Key = [u8; 32];

#[derive(Default)]
pub struct Shared {
    pages: HashMap<Key, Kept>,
    /// By the time of their last use.
    ages: BTreeMap<u64, Key>,
    clock: u64,
}

struct Kept {
    page: Arc<Page>,
    fronts: Arc<[usize]>,
    age: u64,
}

/// The keys of the full pages of these tokens, one after another.
fn keys<'a>(version: &str, front: usize, ids: &'a [u32]) -> impl Iterator<Item = Key> + 'a {
    let mut hash = Sha256::new();
    hash.update(version);
    let mut taken = 0;
    (1..).map_while(move |page: usize| {
        // Virtual rows are before the first token.
        let end = (page * PAGE).saturating_sub(front);
        (end <= ids.len()).then(|| {
            ids[taken..end].iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update([0]);
            taken = end;
            hash.clone().finalize().into()
        })
    })
}

impl Shared {
    /// How many pages are kept.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// What is known of the beginning of a prompt, and how many of its tokens that is; at least one is left to be computed.
    pub fn find(&mut self, version: &str, front: Virtual, form: Form, prompt: &[u32]) -> Option<(Past, usize)> {
        let (mut pages, mut fronts) = (Vec::new(), None);
        let mut used = Vec::new();
        for key in keys(version, rows(front), &prompt[..prompt.len() - 1]) {
            let Some(kept) = self.pages.get(&key) else { break };
            pages.push(Arc::clone(&kept.page));
            fronts = Some(Arc::clone(&kept.fronts));
            used.push(key);
        }
        self.refresh(&used);
        let tokens = (pages.len() * PAGE).saturating_sub(rows(front));
        let virtual_tokens = if let Virtual::Tokens(count) = front { count } else { 0 };
        let fronts = fronts.filter(|_| tokens > 0)?;
        Some((Past::shared(form, pages, virtual_tokens + tokens, fronts), tokens))
    }

    /// Keeps the full pages of what has been computed.
    pub fn keep(&mut self, version: &str, front: Virtual, past: &Past, ids: &[u32]) {
        let mut used = Vec::new();
        for (key, page) in keys(version, rows(front), ids).zip(past.full()) {
            let kept = || Kept { page: Arc::clone(page), fronts: Arc::clone(past.fronts()), age: 0 };
            self.pages.entry(key).or_insert_with(kept);
            used.push(key);
        }
        self.refresh(&used);
    }

    /// These were used last, the first of them the very last: without it the others are of no use.
    fn refresh(&mut self, chain: &[Key]) {
        for key in chain.iter().rev() {
            let Some(kept) = self.pages.get_mut(key) else { continue };
            self.clock += 1;
            self.ages.remove(&kept.age);
            kept.age = self.clock;
            self.ages.insert(self.clock, *key);
        }
    }

    /// Forgets the page that was not used for the longest time; whether there was one.
    pub fn forget_one(&mut self) -> bool {
        let Some((_, key)) = self.ages.pop_first() else { return false };
        self.pages.remove(&key);
        true
    }
}

/// Rows that are remembered before a sequence's first token, at most.
pub fn rows(front: Virtual) -> usize {
    match front {
        Virtual::Nothing => 0,
        Virtual::Tokens(count) | Virtual::Prefix(count) => count,
    }
}
