//! The ids that may be said, one bit each, for constrained decoding. Knows nothing of grammars.

const BITS: usize = u64::BITS as usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    /// Bit `id % 64` of word `id / 64`; ids beyond them are not allowed.
    bits: Vec<u64>,
}

impl TokenMask {
    /// Nothing is allowed yet.
    pub fn new(vocabulary_size: usize) -> Self {
        Self { bits: vec![0; vocabulary_size.div_ceil(BITS)] }
    }

    pub fn from_fn(vocabulary_size: usize, allowed: impl Fn(u32) -> bool) -> Self {
        let mut mask = Self::new(vocabulary_size);
        (0..vocabulary_size as u32).filter(|id| allowed(*id)).for_each(|id| mask.set(id));
        mask
    }

    /// Of words of 32 bits, bit `id % 32` of word `id / 32`; what is beyond the vocabulary is left out.
    pub fn from_u32_words(vocabulary_size: usize, words: &[u32]) -> Self {
        let mut mask = Self::new(vocabulary_size);
        for (index, word) in words.iter().enumerate().take(vocabulary_size.div_ceil(u32::BITS as usize)) {
            mask.bits[index / 2] |= u64::from(*word) << (u32::BITS as usize * (index % 2));
        }
        if let (Some(last), used_bits @ 1..) = (mask.bits.last_mut(), vocabulary_size % BITS) {
            *last &= u64::MAX >> (BITS - used_bits);
        }
        mask
    }

    /// # Panics
    /// Where the id is beyond the vocabulary.
    pub fn set(&mut self, id: u32) {
        self.bits[id as usize / BITS] |= 1 << (id as usize % BITS);
    }

    pub fn is_allowed(&self, id: u32) -> bool {
        self.bits.get(id as usize / BITS).is_some_and(|word| word >> (id as usize % BITS) & 1 == 1)
    }

    /// To be filled anew without another allocation.
    pub fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Makes what is not allowed impossible.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        let words = self.bits.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(BITS).zip(words) {
            match word {
                u64::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                _ => {
                    let disallowed = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    disallowed.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_tokens_keep_their_logits() {
        for allowed in [|id: u32| id % 3 == 1, |id| id < 64, |id| id >= 128, |_| false] {
            let mask = TokenMask::from_fn(150, allowed);
            // logits may be padded beyond the vocabulary
            let mut logits = vec![1.0; 300];
            mask.apply(&mut logits);
            for (id, logit) in logits.into_iter().enumerate() {
                let expected = id < 150 && allowed(id as u32);
                assert_eq!((logit == 1.0, mask.is_allowed(id as u32)), (expected, expected), "{id}");
            }
        }
        let words = [0x8000_0001, u32::MAX, 0, 0, 0x0f];
        let expected = |id: u32| [0, 31, 128, 129].contains(&id) || (32..64).contains(&id);
        assert_eq!(TokenMask::from_u32_words(130, &words), TokenMask::from_fn(130, expected));
        assert_eq!(TokenMask::from_u32_words(20, &words), TokenMask::from_fn(20, |id| id == 0));
        let mut mask = TokenMask::from_fn(70, |_| true);
        mask.clear();
        assert_eq!(mask, TokenMask::new(70));
    }
}
