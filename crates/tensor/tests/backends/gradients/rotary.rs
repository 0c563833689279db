//! Gradients of rotary embeddings, masked attention, channel slices and gated linear units.

use super::{LAYERS, LENGTHS, MATRIX, check, check_with, tensor};
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::{Activation, NormKind, PrependedRows};
use espalier_tensor::rotary::{self, RotaryTable};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{Backend, ParamId, RaggedLayout, Tensor};
use std::sync::Arc;

const HEADS: usize = 2;
const HEAD_WIDTH: usize = super::WIDTH / HEADS;

/// Positions that start at 2 in every sequence.
fn positions() -> Arc<[u32]> {
    LENGTHS.iter().flat_map(|length| 2..2 + *length as u32).collect()
}

fn attention_mask(backend: &dyn Backend, within: [Option<usize>; 2], window: Option<usize>) -> Arc<AttentionMask> {
    let mut random = SeededRng::new(9, &["distance"]);
    let mut bias = |reach: usize| backend.upload(&tensor(&mut random, [HEADS, 2 * reach + 1], 1.0)).unwrap();
    let [behind, ahead] = within;
    Arc::new(AttentionMask { left_window: behind, right_window: ahead, relative_position_bias: window.map(&mut bias) })
}

#[test]
fn rotary_embedding() {
    check_with("rotary", |backend| {
        let rotation =
            Arc::new(RotaryTable::new(backend, 16, &rotary::inverse_frequencies(100.0, HEAD_WIDTH), 1.0).unwrap());
        Box::new(move |tape, [x, ..]| tape.apply_rotary(x, HEADS, &rotation, positions()))
    });
    check_with("rotary attention", |backend| {
        let rotation =
            Arc::new(RotaryTable::new(backend, 16, &rotary::inverse_frequencies(100.0, HEAD_WIDTH), 1.0).unwrap());
        Box::new(move |tape, [q, k, v]| {
            let q = tape.apply_rotary(q, HEADS, &rotation, positions())?;
            let k = tape.apply_rotary(k, HEADS, &rotation, positions())?;
            tape.attention(q, k, v, HEADS)
        })
    });
}

#[test]
fn causal_and_sliding_window_attention() {
    for (name, window, reach) in [
        ("window", [Some(1); 2], None),
        ("bias", [None; 2], Some(2)),
        ("both", [Some(2); 2], Some(1)),
        ("causal", [None, Some(0)], None),
        ("sliding", [Some(1), Some(0)], None),
    ] {
        check_with(name, |backend| {
            let (distance, own) =
                (attention_mask(backend, window, reach), Arc::new(RaggedLayout::from_lengths(LENGTHS)));
            Box::new(move |tape, qkv| tape.masked_attention(qkv, HEADS, &distance, Arc::clone(&own)))
        });
        check_with(&format!("{name} with keys in front"), |backend| {
            let (distance, own) =
                (attention_mask(backend, window, reach), Arc::new(RaggedLayout::from_lengths(LENGTHS)));
            Box::new(move |tape, [q, k, _]| {
                let rows = tape.parameter(ParamId::new(MATRIX))?;
                let key = tape.prepend_rows(k, &[PrependedRows { sequences: 0..LENGTHS.len(), rows }])?;
                tape.masked_attention([q, key, key], HEADS, &distance, Arc::clone(&own))
            })
        });
    }
}

#[test]
fn slices_of_fused_rows() {
    const { assert!(LAYERS == 3) };
    check("columns", move |tape, [x, ..]| {
        let [a, b, c] = [0..3, 2..7, 7..8].map(|columns| tape.slice_channels(x, columns));
        let (joined, narrow) = (tape.slice_channels(b?, 1..4)?, a?);
        let sum = tape.add_rows_scaled(narrow, joined, 0.5)?;
        let last = tape.slice_channels(sum, 2..3)?;
        tape.add_rows_scaled(last, c?, 1.0)
    });
    check("gated", move |tape, [x, ..]| tape.glu(Activation::Gelu, x));
    check("gated silu", move |tape, [x, ..]| tape.glu(Activation::Silu, x));
}

#[test]
fn grouped_query_attention() {
    for behind in [None, Some(1)] {
        check_with("grouped attention", |_| {
            let (distance, own) =
                (Arc::new(AttentionMask::causal(behind)), Arc::new(RaggedLayout::from_lengths(LENGTHS)));
            Box::new(move |tape, [q, k, v]| {
                let [key, value] =
                    [tape.slice_channels(k, 0..HEAD_WIDTH)?, tape.slice_channels(v, HEAD_WIDTH..2 * HEAD_WIDTH)?];
                tape.masked_attention([q, key, value], HEADS, &distance, Arc::clone(&own))
            })
        });
    }
}

#[test]
fn elementwise_product_and_per_head_norm() {
    check("product", move |tape, [x, y, _]| tape.mul(x, y));
    check_with("norm by head", |backend| {
        let ones = [0.5, -1.0, 2.0, 1.5];
        let gain = Tensor::new([HEAD_WIDTH], ones.to_vec());
        let norm = backend.freeze_norm(NormKind::RmsNorm, gain, Tensor::zeros([HEAD_WIDTH]), 1e-6).unwrap();
        let norm = Arc::new(norm);
        Box::new(move |tape, [x, ..]| {
            let heads = tape.reshape(x, HEAD_WIDTH)?;
            let normed = tape.norm(heads, None, &norm)?;
            tape.reshape(normed, HEADS * HEAD_WIDTH)
        })
    });
}
