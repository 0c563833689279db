//! Queued sequences. Each owner's start in the order of their arrival; the owners take turns.

use super::sequence::SequenceState;
use crate::serving::owners::Owner;
use std::collections::VecDeque;

/// Queue of sequences.
#[derive(Default)]
pub struct SequenceQueue {
    /// The owners with queued sequences; the one whose last turn is the longest ago is the first.
    owners: Vec<(Owner, VecDeque<SequenceState>)>,
}

impl SequenceQueue {
    pub fn push(&mut self, sequence: SequenceState) {
        match self.owners.iter_mut().find(|(owner, _)| *owner == sequence.owner) {
            Some((_, sequences)) => sequences.push_back(sequence),
            None => self.owners.push((Owner::clone(&sequence.owner), VecDeque::from([sequence]))),
        }
    }

    pub fn len(&self) -> usize {
        self.owners.iter().map(|(_, sequences)| sequences.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Number of sequences of an owner.
    pub fn len_of(&self, owner: &Owner) -> usize {
        self.sequences_of(owner).map_or(0, VecDeque::len)
    }

    /// Owners with queued sequences, in the order of their turns.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.iter().map(|(owner, _)| owner)
    }

    pub fn iter(&self) -> impl Iterator<Item = &SequenceState> {
        self.owners.iter().flat_map(|(_, sequences)| sequences)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut SequenceState> {
        self.owners.iter_mut().flat_map(|(_, sequences)| sequences)
    }

    /// Sequences of an owner in the order of their arrival.
    pub fn sequences_of(&self, owner: &Owner) -> Option<&VecDeque<SequenceState>> {
        self.owners.iter().find(|(other, _)| other == owner).map(|(_, sequences)| sequences)
    }

    /// Removes the sequence of an owner at a position.
    pub fn remove(&mut self, owner: &Owner, position: usize) -> Option<SequenceState> {
        let (_, sequences) = self.owners.iter_mut().find(|(other, _)| other == owner)?;
        sequences.remove(position)
    }

    /// Inserts a removed sequence where it was.
    pub fn reinsert(&mut self, sequence: SequenceState, position: usize) {
        match self.owners.iter_mut().find(|(owner, _)| *owner == sequence.owner) {
            Some((_, sequences)) => sequences.insert(position, sequence),
            None => self.push(sequence),
        }
    }

    /// Ends the turn of an owner.
    pub fn end_turn(&mut self, owner: &Owner) {
        if let Some(position) = self.owners.iter().position(|(other, _)| other == owner) {
            let turn = self.owners.remove(position);
            if !turn.1.is_empty() {
                self.owners.push(turn);
            }
        }
    }

    /// Removes the cancelled sequences.
    pub fn remove_cancelled(&mut self) {
        self.owners.retain_mut(|(_, sequences)| {
            sequences.retain(SequenceState::has_receiver);
            !sequences.is_empty()
        });
    }

    pub fn clear(&mut self) {
        self.owners.clear();
    }
}
