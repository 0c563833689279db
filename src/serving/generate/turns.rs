//! Who computes how many rows in a step, and on which thread.
//!
//! A step is as long as its longest part, and whoever speaks waits for it with every token. So prompts are read in pieces that
//! the threads share (Agrawal et al. 2024): the more wait to speak, the more is read between two tokens of those who do. Knows
//! nothing of models.

/// Tokens of prompts that are read at once where nobody waits for the next token.
const ALONE: usize = 256;

/// Rows that are rather shared by products than by parts.
const FEW: usize = 4;

/// Tokens of prompts that are read in a step at most, however many wait.
const MOST: usize = 2 * ALONE;

/// Whether threads can multiply together: they do where weights are held in fewer bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Products {
    Shared,
    Apart,
}

/// A sequence before its step.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Tokens whose rows are not computed yet, at least one.
    pub unread: usize,
    /// Whether it still reads its prompt, and says nothing yet.
    pub is_reading: bool,
    /// Its number among all that came.
    pub arrival: u64,
}

/// The rows of each: of those that speak all, of those that read as far as `prompt_tokens` for each one that waits beside one
/// that speaks. Who came first reads first.
pub fn pieces(turns: &[Turn], threads: usize, prompt_tokens: usize) -> Vec<usize> {
    let mut reading: Vec<usize> = (0..turns.len()).filter(|index| turns[*index].is_reading).collect();
    reading.sort_by_key(|index| turns[*index].arrival);
    let speaking = turns.len() - reading.len();
    let mut left = match speaking {
        0 => ALONE.max(prompt_tokens),
        speaking => {
            let wished = prompt_tokens.max(1);
            (wished * reading.len().div_ceil(speaking).max(1)).min(wished.max(MOST))
        }
    };
    // A piece is computed by one thread, unless nothing else is.
    let most = if turns.len() == 1 { left } else { left.div_ceil(threads.max(1)) };
    let mut pieces: Vec<usize> = turns.iter().map(|turn| turn.unread).collect();
    for index in reading {
        pieces[index] = pieces[index].min(most).min(left);
        left -= pieces[index];
    }
    pieces
}

/// The sequences of each part, in their order: pieces of prompts where there is most room, and those that speak beside their
/// neighbours. One part stands for all threads together, where they share products: there are few rows then, or most of them are
/// one piece.
pub fn parts(turns: &[Turn], pieces: &[usize], threads: usize, products: Products) -> Vec<Vec<usize>> {
    let rows: usize = pieces.iter().sum();
    let share = rows.div_ceil(threads.max(1)).max(FEW);
    let mut parts = vec![(0, Vec::new()); rows.div_ceil(share)];
    let (mut reading, speaking): (Vec<usize>, Vec<usize>) =
        (0..turns.len()).filter(|index| pieces[*index] > 0).partition(|index| turns[*index].is_reading);
    reading.sort_by_key(|index| std::cmp::Reverse(pieces[*index]));
    for index in reading.into_iter().chain(speaking) {
        let open = parts.iter().position(|(filled, _)| !turns[index].is_reading && *filled < share);
        let emptiest = || (0..parts.len()).min_by_key(|part| parts[*part].0);
        if let Some(part) = open.or_else(emptiest) {
            parts[part].0 += pieces[index];
            parts[part].1.push(index);
        }
    }
    let fullest = parts.iter().map(|(filled, _)| *filled).max().unwrap_or(0);
    if products == Products::Shared && 2 * fullest > 3 * share {
        return vec![(0..turns.len()).filter(|index| pieces[*index] > 0).collect()];
    }
    let sorted = |(_, mut part): (usize, Vec<usize>)| {
        part.sort_unstable();
        part
    };
    parts.into_iter().map(sorted).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(reading: &[usize], speaking: usize) -> Vec<Turn> {
        let read = reading.iter().zip(0..).map(|(unread, arrival)| Turn { unread: *unread, is_reading: true, arrival });
        let speak = (0..speaking).map(|arrival| Turn { unread: 1, is_reading: false, arrival: 100 + arrival as u64 });
        read.chain(speak).collect()
    }

    /// The rows of each part.
    fn planned(turns: &[Turn], threads: usize, prompt_tokens: usize) -> Vec<usize> {
        let pieces = pieces(turns, threads, prompt_tokens);
        let parts = parts(turns, &pieces, threads, Products::Shared);
        let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
        all.sort_unstable();
        let expected: Vec<usize> = (0..turns.len()).filter(|index| pieces[*index] > 0).collect();
        assert_eq!(all, expected, "each is computed once");
        parts.iter().map(|part| part.iter().map(|index| pieces[*index]).sum()).collect()
    }

    #[test]
    fn prompts_are_read_in_pieces_while_others_speak() {
        assert_eq!(pieces(&turns(&[500], 0), 2, 64), [256]);
        assert_eq!(pieces(&turns(&[500], 4), 2, 64)[0], 32);
        assert_eq!(pieces(&turns(&[500, 500, 500], 4), 2, 64)[..3], [32, 32, 0]);
        assert_eq!(pieces(&turns(&[10, 500, 500], 4), 2, 64)[..3], [10, 32, 22]);
        // five that wait beside one that speaks
        assert_eq!(pieces(&turns(&[100; 5], 1), 2, 64)[..5], [100, 100, 100, 20, 0]);
        assert_eq!(pieces(&turns(&[400; 40], 1), 2, 64).iter().sum::<usize>(), 512 + 1, "there is an end to it");
        assert_eq!(pieces(&turns(&[500, 500], 0), 2, 64), [128, 128]);
        assert_eq!(pieces(&turns(&[7], 9), 4, 0)[0], 1, "whatever the setting, it goes on");
        let mut late = turns(&[50, 50], 3);
        late[0].arrival = 9;
        assert_eq!(pieces(&late, 1, 60)[..2], [10, 50]);
    }

    #[test]
    fn parts_have_about_as_many_rows_each() {
        assert_eq!(planned(&turns(&[], 16), 2, 64), [8, 8]);
        assert_eq!(planned(&turns(&[62, 62], 14), 2, 64), [39, 39]);
        assert_eq!(planned(&turns(&[500], 30), 2, 64), [32, 30]);
        assert_eq!(planned(&turns(&[60; 8], 0), 4, 64), [76, 60, 60, 60]);
        assert_eq!(planned(&turns(&[], 3), 8, 64), [3], "few rows are shared by products");
        assert_eq!(planned(&turns(&[500], 1), 2, 64), [33], "so is a piece beside next to nothing");
        assert_eq!(planned(&turns(&[512], 0), 2, 64), [256]);
        assert!(parts(&[], &[], 2, Products::Shared).is_empty());
        let (one, alone) = (turns(&[500], 1), [32, 1]);
        assert_eq!(parts(&one, &alone, 2, Products::Apart), [[0], [1]]);
    }

    #[test]
    fn those_that_speak_stay_beside_their_neighbours() {
        let turns = turns(&[], 10);
        let pieces = pieces(&turns, 2, 64);
        assert_eq!(parts(&turns, &pieces, 2, Products::Apart), [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]);
    }
}
