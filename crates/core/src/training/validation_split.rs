//! Validation split: a function of the seed and the data. Copies and near-copies of a text stay on one side.

use crate::task::Example;
use crate::task::text_key::TextKey;
use espalier_tensor::seeded_rng::SeededRng;
use std::collections::{HashMap, HashSet};

/// Indices of the training and the validation examples, both in the order of the dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
}

/// Group of each example: copies of an input are one group. Answers to one prompt are a group, too, unless they are more than
/// `max_group`: these are grouped by prompt and answer.
pub fn copy_groups(examples: &[&Example], max_group: usize) -> Vec<u32> {
    let input_keys: Vec<TextKey> = examples.iter().map(|example| example.input_key()).collect();
    let mut group_sizes: HashMap<TextKey, usize> = HashMap::new();
    for key in &input_keys {
        *group_sizes.entry(*key).or_default() += 1;
    }
    let mut groups: HashMap<TextKey, u32> = HashMap::new();
    let group = |(example, input_key): (&&Example, TextKey)| {
        let key = if group_sizes[&input_key] > max_group { example.row_key() } else { input_key };
        let new_group = groups.len() as u32;
        *groups.entry(key).or_insert(new_group)
    };
    examples.iter().zip(input_keys).map(group).collect()
}

/// Number of validation examples whose input is also one of the training examples.
pub fn count_shared(training: &[&Example], validation: &[&Example]) -> usize {
    if validation.is_empty() {
        return 0;
    }
    let keys: HashSet<TextKey> = training.iter().map(|example| example.input_key()).collect();
    validation.iter().filter(|example| keys.contains(&example.input_key())).count()
}

/// Stratified split: each stratum is split by `fraction`, with the largest remainder method for rounding, and keeps at least one
/// example in training. The examples of a group stay together.
pub fn stratified_split(strata: &[u32], stratum_count: usize, groups: &[u32], fraction: f64, seed: u64) -> Split {
    let mut strata_members: Vec<Vec<usize>> = vec![Vec::new(); stratum_count];
    for (index, class) in strata.iter().enumerate() {
        strata_members[*class as usize].push(index);
    }
    let mut random = SeededRng::new(seed, &["split"]);
    let quotas = validation_quotas(&strata_members, fraction, strata.len());
    strata_members.iter_mut().for_each(|members| random.shuffle(members));
    let mut draw = GroupDraw::new(strata, groups, &strata_members);
    for (stratum, (quota, members)) in quotas.iter().zip(&strata_members).enumerate() {
        for member in members {
            if draw.drawn_per_stratum[stratum] >= *quota {
                break;
            }
            draw.draw(*member, *quota - draw.drawn_per_stratum[stratum]);
        }
    }
    // What large groups have left of one stratum's quota, small groups of the others fill.
    let total: usize = quotas.iter().sum();
    for member in strata_members.iter().flatten() {
        if draw.drawn >= total {
            break;
        }
        draw.draw(*member, total - draw.drawn);
    }
    if draw.drawn == 0 && total > 0 {
        draw.draw_smallest_group(&strata_members);
    }
    let (validation, training) = (0..strata.len()).partition(|index| draw.is_drawn[groups[*index] as usize]);
    Split { training, validation }
}

/// Draws whole groups for validation.
struct GroupDraw<'a> {
    strata: &'a [u32],
    groups: &'a [u32],
    /// Examples of each group.
    members: Vec<Vec<usize>>,
    is_drawn: Vec<bool>,
    stratum_sizes: Vec<usize>,
    drawn_per_stratum: Vec<usize>,
    drawn: usize,
}

impl<'a> GroupDraw<'a> {
    fn new(strata: &'a [u32], groups: &'a [u32], strata_members: &[Vec<usize>]) -> Self {
        let group_count = groups.iter().max().map_or(0, |last| *last as usize + 1);
        let mut members = vec![Vec::new(); group_count];
        for (index, group) in groups.iter().enumerate() {
            members[*group as usize].push(index);
        }
        Self {
            strata,
            groups,
            members,
            is_drawn: vec![false; group_count],
            stratum_sizes: strata_members.iter().map(Vec::len).collect(),
            drawn_per_stratum: vec![0; strata_members.len()],
            drawn: 0,
        }
    }

    /// Draws the example's group, if it has at most `most` examples and each of its strata keeps one in training.
    fn draw(&mut self, example: usize, most: usize) {
        let group = self.groups[example] as usize;
        let members = &self.members[group];
        if self.is_drawn[group] || members.len() > most {
            return;
        }
        let mut drawn: HashMap<usize, usize> = HashMap::new();
        for member in members {
            *drawn.entry(self.strata[*member] as usize).or_default() += 1;
        }
        let keeps_training = |(stratum, count): (&usize, &usize)| {
            self.drawn_per_stratum[*stratum] + count < self.stratum_sizes[*stratum]
        };
        if drawn.iter().all(keeps_training) {
            self.is_drawn[group] = true;
            self.drawn += members.len();
            drawn.into_iter().for_each(|(stratum, count)| self.drawn_per_stratum[stratum] += count);
        }
    }

    /// Draws the smallest group, where it is at most half of the examples.
    fn draw_smallest_group(&mut self, strata_members: &[Vec<usize>]) {
        let shuffled = || strata_members.iter().flatten().copied();
        let group_size = |example: &usize| self.members[self.groups[*example] as usize].len();
        if let Some(example) = shuffled().min_by_key(group_size) {
            self.draw(example, self.strata.len() / 2);
        }
    }
}

fn validation_quotas(members: &[Vec<usize>], fraction: f64, example_count: usize) -> Vec<usize> {
    let shares: Vec<f64> = members.iter().map(|members| members.len() as f64 * fraction).collect();
    let max_quota = |class: usize| members[class].len().saturating_sub(1);
    let mut quotas: Vec<usize> =
        shares.iter().enumerate().map(|(class, share)| (*share as usize).min(max_quota(class))).collect();
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by(|a, b| shares[*b].fract().total_cmp(&shares[*a].fract()).then(a.cmp(b)));
    let mut remaining = ((example_count as f64 * fraction).round() as usize).saturating_sub(quotas.iter().sum());
    for class in order {
        if remaining > 0 && quotas[class] < max_quota(class) {
            quotas[class] += 1;
            remaining -= 1;
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Target;

    /// Split of examples of which none is a copy.
    fn stratified_split(strata: &[u32], stratum_count: usize, fraction: f64, seed: u64) -> Split {
        let groups: Vec<u32> = (0..strata.len() as u32).collect();
        super::stratified_split(strata, stratum_count, &groups, fraction, seed)
    }

    #[test]
    fn the_split_is_stratified_and_a_single_example_is_kept_in_training() {
        let mut classes: Vec<u32> = (0..100).map(|index| u32::from(index >= 70)).collect();
        classes.push(2);
        let split = stratified_split(&classes, 3, 0.1, 7);
        let validation_count = |class: u32| split.validation.iter().filter(|index| classes[**index] == class).count();
        assert_eq!((validation_count(0), validation_count(1), validation_count(2)), (7, 3, 0));
        assert_eq!(split.training.len() + split.validation.len(), classes.len());
        assert_eq!(split, stratified_split(&classes, 3, 0.1, 7));
        assert_ne!(split, stratified_split(&classes, 3, 0.1, 8));
    }

    #[test]
    fn few_examples_of_many_classes_still_yield_a_validation_split() {
        let classes: Vec<u32> = (0..60).map(|index| index / 3).collect();
        assert_eq!(stratified_split(&classes, 20, 0.1, 1).validation.len(), 6);
        assert!(stratified_split(&classes, 20, 0.0, 1).validation.is_empty());
    }

    #[test]
    fn copies_stay_on_one_side_whatever_their_number_and_label() {
        // 40 texts three times each, some of them with two labels.
        let (mut strata, mut groups) = (Vec::new(), Vec::new());
        for index in 0..120u32 {
            strata.push(u32::from(index % 7 == 0));
            groups.push(index % 40);
        }
        for seed in 0..20 {
            let split = super::stratified_split(&strata, 2, &groups, 0.1, seed);
            let sides = |indices: &[usize]| indices.iter().map(|index| groups[*index]).collect::<HashSet<u32>>();
            assert!(sides(&split.training).is_disjoint(&sides(&split.validation)));
            assert_eq!(split.validation.len(), 12, "four texts of three copies");
            assert_eq!(split, super::stratified_split(&strata, 2, &groups, 0.1, seed));
        }
    }

    #[test]
    fn groups_above_the_quota_give_the_smallest_of_them() {
        let groups: Vec<u32> = (0..20).map(|index| if index < 12 { 0 } else { 1 }).collect();
        let split = super::stratified_split(&[0; 20], 1, &groups, 0.1, 1);
        assert_eq!(split.validation, (12..20).collect::<Vec<_>>());
        let split = super::stratified_split(&[0; 20], 1, &[0; 20], 0.1, 1);
        assert!(split.validation.is_empty(), "one text alone is trained on");
    }

    #[test]
    fn near_copies_are_one_group_and_a_prompt_of_most_rows_is_none() {
        let example = |text: &str, target| Example { line: 1, text: text.to_string(), text_pair: None, target };
        let label = |text| example(text, Target::Label("a".to_string()));
        let labelled = [label("My card"), label("my  card"), label("cash"), label("MY CARD")];
        assert_eq!(copy_groups(&labelled.each_ref(), 1), [0, 0, 1, 0]);
        let answer = |text| example("count", Target::Completion(String::from(text)));
        let answers = [answer("1"), answer("2"), answer("1")];
        assert_eq!(copy_groups(&answers.each_ref(), 3), [0, 0, 0]);
        assert_eq!(copy_groups(&answers.each_ref(), 2), [0, 1, 0]);
        assert_eq!(count_shared(&labelled.each_ref()[..1], &labelled.each_ref()[1..]), 2);
    }
}
