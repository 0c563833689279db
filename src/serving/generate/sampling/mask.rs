//! The ids that may be said, one bit each, for constrained decoding. Knows nothing of grammars.

const BITS: usize = u64::BITS as usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Bit `id % 64` of word `id / 64`; ids beyond them are not allowed.
    words: Vec<u64>,
}

impl Mask {
    /// Nothing is allowed yet.
    pub fn new(vocabulary: usize) -> Self {
        Self { words: vec![0; vocabulary.div_ceil(BITS)] }
    }

    pub fn of(vocabulary: usize, allowed: impl Fn(u32) -> bool) -> Self {
        let mut mask = Self::new(vocabulary);
        (0..vocabulary as u32).filter(|id| allowed(*id)).for_each(|id| mask.allow(id));
        mask
    }

    /// Of words of 32 bits, bit `id % 32` of word `id / 32`; what is beyond the vocabulary is left out.
    pub fn from_words(vocabulary: usize, words: &[u32]) -> Self {
        let mut mask = Self::new(vocabulary);
        for (index, word) in words.iter().enumerate().take(vocabulary.div_ceil(u32::BITS as usize)) {
            mask.words[index / 2] |= u64::from(*word) << (u32::BITS as usize * (index % 2));
        }
        if let (Some(last), beyond @ 1..) = (mask.words.last_mut(), vocabulary % BITS) {
            *last &= u64::MAX >> (BITS - beyond);
        }
        mask
    }

    /// # Panics
    /// Where the id is beyond the vocabulary.
    pub fn allow(&mut self, id: u32) {
        self.words[id as usize / BITS] |= 1 << (id as usize % BITS);
    }

    pub fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / BITS).is_some_and(|word| word >> (id as usize % BITS) & 1 == 1)
    }

    /// To be filled anew without another allocation.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Makes what is not allowed impossible.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(BITS).zip(words) {
            match word {
                u64::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                _ => {
                    let outside = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    outside.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_keeps_its_logit() {
        for allowed in [|id: u32| id % 3 == 1, |id| id < 64, |id| id >= 128, |_| false] {
            let mask = Mask::of(150, allowed);
            // logits may be padded beyond the vocabulary
            let mut logits = vec![1.0; 300];
            mask.apply(&mut logits);
            for (id, logit) in logits.into_iter().enumerate() {
                let right = id < 150 && allowed(id as u32);
                assert_eq!((logit == 1.0, mask.allows(id as u32)), (right, right), "{id}");
            }
        }
        let words = [0x8000_0001, u32::MAX, 0, 0, 0x0f];
        let told = |id: u32| [0, 31, 128, 129].contains(&id) || (32..64).contains(&id);
        assert_eq!(Mask::from_words(130, &words), Mask::of(130, told));
        assert_eq!(Mask::from_words(20, &words), Mask::of(20, |id| id == 0));
        let mut mask = Mask::of(70, |_| true);
        mask.clear();
        assert_eq!(mask, Mask::new(70));
    }
}
