//! Attention that does not see everything.

use super::{Desk, compare, tensor};
use espalier_tensor::Packed;
use espalier_tensor::distance::{Distance, Near};
use espalier_tensor::kernels::{Attention, Keep};
use espalier_tensor::random::Random;

/// Causal or in a window, by themselves and behind keys in front, with a bias, and for heads that share keys.
#[test]
fn attention_that_does_not_see_everything() {
    let lengths = [[3, 70, 1].as_slice(), &[131], &[49, 48], &[300, 20]];
    let distances = [Distance::causal(None), Distance::causal(Some(40)), Distance::window(20), Distance::window(3)];
    let cases = lengths.iter().flat_map(|lengths| distances.iter().map(move |distance| (*lengths, distance)));
    for ((lengths, distance), (front, biased)) in cases.zip([(0, false), (5, true), (17, false)].iter().cycle()) {
        let (heads, shared, width) = (4, 2, 16);
        let own = Packed::from_lengths(lengths.iter().copied());
        let layout = Packed::from_lengths(lengths.iter().map(|length| length + front));
        let mut random = Random::new(6, &["distances"]);
        let [q, gradient] = std::array::from_fn(|_| tensor(&mut random, [own.rows(), heads * width]));
        let [k, v] = std::array::from_fn(|_| tensor(&mut random, [layout.rows(), shared * width]));
        let bias = tensor(&mut random, [heads, 2 * 30 + 1]);
        compare(&format!("{distance:?}, {lengths:?} behind {front}"), &|kernels| {
            let desk = Desk { kernels };
            let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| desk.up(tensor));
            let distance = Distance { bias: biased.then(|| desk.up(&bias)), ..distance.clone() };
            let near = Some(Near { distance: &distance, own: &own });
            let inputs =
                Attention { query: &query, key: &key, value: &value, asking: &own, layout: &layout, heads, near };
            let (output, saved) = kernels.attention(inputs, Keep::ForBackward).unwrap();
            let back = kernels.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
            std::iter::once(output).chain(back).map(|rows| desk.down(&rows)).collect()
        });
    }
}
