//! Agreement of the backends: masked attention.

use super::{BackendUnderTest, compare, tensor};
use espalier_tensor::RaggedLayout;
use espalier_tensor::attention_mask::{AttentionMask, MaskContext};
use espalier_tensor::backend::{AttentionInput, SaveForBackward};
use espalier_tensor::seeded_rng::SeededRng;

/// Causal and sliding windows, with and without prefix keys and bias, and with grouped queries.
#[test]
fn masked_attention() {
    let lengths = [[3, 70, 1].as_slice(), &[131], &[49, 48], &[300, 20]];
    let distances = [
        AttentionMask::causal(None),
        AttentionMask::causal(Some(40)),
        AttentionMask::symmetric_window(20),
        AttentionMask::symmetric_window(3),
    ];
    let cases = lengths.iter().flat_map(|lengths| distances.iter().map(move |distance| (*lengths, distance)));
    for ((lengths, distance), (front, biased)) in cases.zip([(0, false), (5, true), (17, false)].iter().cycle()) {
        let (heads, shared, width) = (4, 2, 16);
        let own = RaggedLayout::from_lengths(lengths.iter().copied());
        let layout = RaggedLayout::from_lengths(lengths.iter().map(|length| length + front));
        let mut random = SeededRng::new(6, &["distances"]);
        let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.num_rows(), heads * width]));
        let [k, v] = std::array::from_fn(|_| tensor(&mut random, [layout.num_rows(), shared * width]));
        let bias = tensor(&mut random, [heads, 2 * 30 + 1]);
        compare(&format!("{distance:?}, {lengths:?} behind {front}"), &|backend| {
            let under_test = BackendUnderTest { backend };
            let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| under_test.upload(tensor));
            let distance =
                AttentionMask { relative_position_bias: biased.then(|| under_test.upload(&bias)), ..distance.clone() };
            let near = Some(MaskContext { mask: &distance, unprefixed_key_layout: &own });
            let inputs = AttentionInput {
                query: &query,
                key: &key,
                value: &value,
                query_layout: &own,
                key_layout: &layout,
                heads,
                mask: near,
            };
            let (output, saved) = backend.attention(inputs, SaveForBackward::Yes).unwrap();
            let back = backend.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
            std::iter::once(output).chain(back).map(|rows| under_test.download(&rows)).collect()
        });
    }
}
