//! Rotary positions, attention by distance, and fused rows.

use super::{LAYERS, LENGTHS, MATRIX, check, check_with, tensor};
use espalier_tensor::columns::Front;
use espalier_tensor::distance::Distance;
use espalier_tensor::kernels::{Activation, NormForm};
use espalier_tensor::random::Random;
use espalier_tensor::rotary::{self, Rotation};
use espalier_tensor::{Kernels, Packed, Param, Tensor};
use std::sync::Arc;

const HEADS: usize = 2;
const HEAD_WIDTH: usize = super::WIDTH / HEADS;

/// Positions counted on from 2 in every sequence.
fn positions() -> Arc<[u32]> {
    LENGTHS.iter().flat_map(|length| 2..2 + *length as u32).collect()
}

fn distance(kernels: &dyn Kernels, within: [Option<usize>; 2], reach: Option<usize>) -> Arc<Distance> {
    let mut random = Random::new(9, &["distance"]);
    let mut bias = |reach: usize| kernels.upload(&tensor(&mut random, [HEADS, 2 * reach + 1], 1.0)).unwrap();
    let [behind, ahead] = within;
    Arc::new(Distance { behind, ahead, bias: reach.map(&mut bias) })
}

#[test]
fn rows_that_are_turned_by_their_positions() {
    check_with("rotary", |kernels| {
        let rotation = Arc::new(Rotation::new(kernels, 16, &rotary::frequencies(100.0, HEAD_WIDTH), 1.0).unwrap());
        Box::new(move |tape, [x, ..]| tape.rotate(x, HEADS, &rotation, positions()))
    });
    check_with("rotary attention", |kernels| {
        let rotation = Arc::new(Rotation::new(kernels, 16, &rotary::frequencies(100.0, HEAD_WIDTH), 1.0).unwrap());
        Box::new(move |tape, [q, k, v]| {
            let q = tape.rotate(q, HEADS, &rotation, positions())?;
            let k = tape.rotate(k, HEADS, &rotation, positions())?;
            tape.attention(q, k, v, HEADS)
        })
    });
}

#[test]
fn attention_that_knows_of_distances() {
    for (name, window, reach) in [
        ("window", [Some(1); 2], None),
        ("bias", [None; 2], Some(2)),
        ("both", [Some(2); 2], Some(1)),
        ("causal", [None, Some(0)], None),
        ("sliding", [Some(1), Some(0)], None),
    ] {
        check_with(name, |kernels| {
            let (distance, own) = (distance(kernels, window, reach), Arc::new(Packed::from_lengths(LENGTHS)));
            Box::new(move |tape, qkv| tape.attention_within(qkv, HEADS, &distance, Arc::clone(&own)))
        });
        check_with(&format!("{name} with keys in front"), |kernels| {
            let (distance, own) = (distance(kernels, window, reach), Arc::new(Packed::from_lengths(LENGTHS)));
            Box::new(move |tape, [q, k, _]| {
                let rows = tape.parameter(Param::new(MATRIX))?;
                let key = tape.prepend(k, &[Front { sequences: 0..LENGTHS.len(), rows }])?;
                tape.attention_within([q, key, key], HEADS, &distance, Arc::clone(&own))
            })
        });
    }
}

#[test]
fn parts_of_fused_rows() {
    const { assert!(LAYERS == 3) };
    check("columns", move |tape, [x, ..]| {
        let [a, b, c] = [0..3, 2..7, 7..8].map(|columns| tape.columns(x, columns));
        let (joined, narrow) = (tape.columns(b?, 1..4)?, a?);
        let sum = tape.add_rows(narrow, joined, 0.5)?;
        let last = tape.columns(sum, 2..3)?;
        tape.add_rows(last, c?, 1.0)
    });
    check("gated", move |tape, [x, ..]| tape.gated(Activation::Gelu, x));
    check("gated silu", move |tape, [x, ..]| tape.gated(Activation::Silu, x));
}

#[test]
fn attention_whose_heads_share_keys_and_values() {
    for behind in [None, Some(1)] {
        check_with("grouped attention", |_| {
            let (distance, own) = (Arc::new(Distance::causal(behind)), Arc::new(Packed::from_lengths(LENGTHS)));
            Box::new(move |tape, [q, k, v]| {
                let [key, value] = [tape.columns(k, 0..HEAD_WIDTH)?, tape.columns(v, HEAD_WIDTH..2 * HEAD_WIDTH)?];
                tape.attention_within([q, key, value], HEADS, &distance, Arc::clone(&own))
            })
        });
    }
}

#[test]
fn products_and_rows_of_heads() {
    check("product", move |tape, [x, y, _]| tape.multiply(x, y));
    check_with("norm by head", |kernels| {
        let ones = [0.5, -1.0, 2.0, 1.5];
        let gain = Tensor::new([HEAD_WIDTH], ones.to_vec());
        let norm = kernels.freeze_norm(NormForm::RootMeanSquare, gain, Tensor::zeros([HEAD_WIDTH]), 1e-6).unwrap();
        let norm = Arc::new(norm);
        Box::new(move |tape, [x, ..]| {
            let heads = tape.fold(x, HEAD_WIDTH)?;
            let normed = tape.norm(heads, None, &norm)?;
            tape.fold(normed, HEADS * HEAD_WIDTH)
        })
    });
}
