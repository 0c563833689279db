//! The kernel sets agree: ours with candle's to rounding, ours with themselves to the bit, whatever the shapes.
mod attention;
mod rotary;

use espalier_tensor::candle::Candle;
use espalier_tensor::columns::Front;
use espalier_tensor::cpu::{Cpu, Level};
use espalier_tensor::device::Weights;
use espalier_tensor::kernels::{Activation, Attention, Keep, LowRank, NormForm, Pool};
use espalier_tensor::random::Random;
use espalier_tensor::{Buffer, Kernels, Packed, Tensor};

/// Relative to the largest value.
const TOLERANCE: f32 = 2e-5;

fn tensor(random: &mut Random, shape: impl Into<Vec<usize>>) -> Tensor {
    let shape = shape.into();
    let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
    Tensor::new(shape, values)
}

/// `operation` answers as many tensors as it likes.
fn compare(what: &str, operation: &dyn Fn(&dyn Kernels) -> Vec<Vec<f32>>) {
    let expected = operation(&Candle::cpu());
    let mut fused: Option<Vec<Vec<f32>>> = None;
    for level in Level::all() {
        let found = operation(&Cpu::with(level));
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{what} on {level:?}, output {index}");
            let largest = expected.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
            for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (found - expected).abs() / largest;
                assert!(
                    error <= TOLERANCE,
                    "{what} on {level:?}, output {index}, place {place}: {found}, not {expected}"
                );
            }
        }
        if !level.is_portable() {
            let first = fused.get_or_insert_with(|| found.clone());
            assert!(bits(first) == bits(&found), "{what}: the instruction sets give the same bits");
        }
    }
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
}

struct Desk<'a> {
    kernels: &'a dyn Kernels,
}

impl Desk<'_> {
    fn up(&self, tensor: &Tensor) -> Buffer {
        self.kernels.upload(tensor).unwrap()
    }

    fn down(&self, rows: &Buffer) -> Vec<f32> {
        self.kernels.download(rows).unwrap().values
    }
}

/// Rows, input and output widths: below, at and beyond a register, a tile, a block.
const SHAPES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [1, 384, 384],
    [2, 7, 33],
    [3, 64, 130],
    [4, 400, 48],
    [5, 16, 16],
    [11, 31, 17],
    [12, 768, 32],
    [13, 5, 40],
    [64, 100, 100],
    [241, 33, 47],
    [500, 20, 24],
];

#[test]
fn frozen_linear_maps() {
    for [rows, input, output] in SHAPES {
        let mut random = Random::new(1, &["linear"]);
        let [weight, bias] = [tensor(&mut random, [output, input]), tensor(&mut random, [output])];
        let [x, dy, onto] = [[rows, input], [rows, output], [rows, input]].map(|shape| tensor(&mut random, shape));
        compare(&format!("linear {rows} {input} {output}"), &|kernels| {
            let desk = Desk { kernels };
            let map = kernels.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
            let plain = kernels.freeze_linear(weight.clone(), None).unwrap();
            let (x, dy, onto) = (desk.up(&x), desk.up(&dy), desk.up(&onto));
            let results = [
                kernels.linear(&x, &map),
                kernels.linear(&x, &plain),
                kernels.linear_backward(&dy, &map, None),
                kernels.linear_backward(&dy, &map, Some(onto)),
            ];
            results.map(|result| desk.down(&result.unwrap())).to_vec()
        });
    }
}

#[test]
fn dense_layers() {
    for [rows, input, output] in SHAPES {
        let mut random = Random::new(2, &["dense"]);
        let [weight, bias] = [tensor(&mut random, [output, input]), tensor(&mut random, [output])];
        let [x, dy] = [[rows, input], [rows, output]].map(|shape| tensor(&mut random, shape));
        compare(&format!("dense {rows} {input} {output}"), &|kernels| {
            let desk = Desk { kernels };
            let [x, dy] = [&x, &dy].map(|tensor| desk.up(tensor));
            let layer = kernels.parameters(&[weight.clone(), bias.clone()]).unwrap();
            let [weight, bias] = [&layer[0], &layer[1]];
            let by = kernels.dense_backward_parameters(&dy, &x).unwrap();
            let y = kernels.dense(&x, weight, bias).unwrap();
            let dx = kernels.dense_backward_input(&dy, weight).unwrap();
            [y, dx, by.weight, by.bias].map(|rows| desk.down(&rows)).to_vec()
        });
    }
}

#[test]
fn low_rank_maps() {
    for ([rows, input, output], rank) in SHAPES.into_iter().zip([1, 8, 2, 4, 16, 3, 8, 8, 1, 17, 8, 5]) {
        let mut random = Random::new(3, &["low rank"]);
        let [a, b] = [[rank, input], [output, rank]].map(|shape| tensor(&mut random, shape));
        let [x, dy, onto, dx] =
            [[rows, input], [rows, output], [rows, output], [rows, input]].map(|shape| tensor(&mut random, shape));
        compare(&format!("low rank {rows} {input} {output} {rank}"), &|kernels| {
            let desk = Desk { kernels };
            let [x, dy] = [&x, &dy].map(|tensor| desk.up(tensor));
            let pair = kernels.parameters(&[a.clone(), b.clone()]).unwrap();
            let [a, b] = [&pair[0], &pair[1]];
            let (update, shared) = (LowRank { input: &x, a, b, scale: 0.7 }, desk.up(&onto));
            let (y, projected) = kernels.add_low_rank(shared.clone(), 0..rows, update).unwrap();
            assert_eq!(desk.down(&shared), onto.values, "rows that somebody else has are not written on");
            let last = kernels.narrow(&x, rows - 1..rows).unwrap();
            let update = LowRank { input: &last, ..update };
            let (of_last, _) = kernels.add_low_rank(desk.up(&onto), rows - 1..rows, update).unwrap();
            let both = [(rows - 1..rows, update), (0..rows, LowRank { input: &x, ..update })];
            let both = kernels.add_low_ranks(desk.up(&onto), &both).unwrap();
            let inner = kernels.low_rank_backward(&dy, b, 0.7).unwrap();
            let by = kernels.low_rank_backward_parameters(&dy, &inner, &x, &projected).unwrap();
            let alone = kernels.low_rank_backward_input(&inner, a, None).unwrap();
            let added = kernels.low_rank_backward_input(&inner, a, Some(desk.up(&dx))).unwrap();
            [y, projected, of_last, both, inner, by.a, by.b, alone, added].map(|rows| desk.down(&rows)).to_vec()
        });
    }
}

#[test]
fn passes_over_rows() {
    for [rows, width, _] in SHAPES {
        if width < 2 {
            continue; // the norm of one number is 0 whatever the number, divided by its own rounding
        }
        let mut random = Random::new(4, &["rows"]);
        let [x, y, gain, shift] =
            [[rows, width], [rows, width], [1, width], [1, width]].map(|shape| tensor(&mut random, shape));
        let [gain, shift] = [gain, shift].map(|one| Tensor::new([width], one.values));
        compare(&format!("rows {rows} {width}"), &|kernels| {
            let desk = Desk { kernels };
            let [x, y] = [&x, &y].map(|tensor| desk.up(tensor));
            let simple = [kernels.add(&x, &y), kernels.multiply(&x, &y), kernels.scale(&x, -1.5)].map(Result::unwrap);
            let mut all = simple.to_vec();
            for form in [NormForm::Layer, NormForm::RootMeanSquare] {
                let norm = kernels.freeze_norm(form, gain.clone(), shift.clone(), 1e-5).unwrap();
                let (normed, saved) = kernels.norm(&x, None, &norm, Keep::ForBackward).unwrap();
                let (summed, nothing) = kernels.norm(&x, Some(&y), &norm, Keep::Nothing).unwrap();
                assert!(nothing.is_none());
                all.extend([normed, summed, kernels.norm_backward(&y, &saved.unwrap(), &norm).unwrap()]);
            }
            for activation in
                [Activation::Gelu, Activation::GeluTanh, Activation::Tanh, Activation::Relu, Activation::Silu]
            {
                let (activated, derivative) = kernels.activate(activation, &x, Keep::ForBackward).unwrap();
                let (again, nothing) = kernels.activate(activation, &x, Keep::Nothing).unwrap();
                assert!(nothing.is_none() && desk.down(&again) == desk.down(&activated));
                all.extend([activated, derivative.unwrap()]);
            }
            all.iter().map(|rows| desk.down(rows)).collect()
        });
    }
}

#[test]
fn scales_shifts_and_rows_in_front() {
    for width in [1, 16, 40] {
        let mut random = Random::new(6, &["columns"]);
        let layout = Packed::from_lengths([1, 3, 2, 5]);
        let [x, vector, front] =
            [vec![11, width], vec![1, width], vec![2, width]].map(|shape| tensor(&mut random, shape));
        let tables = [vec![9, width], vec![4, width]].map(|shape| tensor(&mut random, shape));
        compare(&format!("columns {width}"), &|kernels| {
            let desk = Desk { kernels };
            let vector = desk.up(&vector);
            let some = kernels.narrow(&desk.up(&x), 2..6).unwrap();
            let sequences = [1..2, 3..4];
            let rows = desk.up(&front);
            let fronts = sequences.map(|sequences| Front { sequences, rows: &rows });
            let behind = kernels.prepend(&desk.up(&x), &layout, &fronts).unwrap();
            let all = kernels.prepend(&desk.up(&x), &layout, &[Front { sequences: 0..4, rows: &rows }]).unwrap();
            let [own, before] = kernels.prepend_backward(&all, &layout, 2).unwrap();
            let [first, second] = tables.clone().map(|table| kernels.freeze_table(table).unwrap());
            let ids: [&[u32]; 2] = [&[8, 0, 3], &[1, 1, 0]];
            let whole = kernels.embed(&[(&first, ids[0]), (&second, ids[1])], None).unwrap();
            let begun = kernels.embed(&[(&first, ids[0])], None).unwrap();
            let onto = kernels.embed(&[(&second, ids[1])], Some(begun)).unwrap();
            assert_eq!(desk.down(&whole), desk.down(&onto), "tables are added in their order");
            let changed = [
                kernels.scale_columns(desk.up(&x), 3..7, &vector),
                kernels.add_columns(desk.up(&x), 0..11, &vector),
                kernels.add_within(desk.up(&x), 4..8, &some, -0.5),
                kernels.sum_rows(&desk.up(&x)),
                kernels.sum_products(&some, &some),
            ];
            let mut all = vec![behind, own, before, whole];
            all.extend(changed.map(Result::unwrap));
            all.iter().map(|rows| desk.down(rows)).collect()
        });
    }
}

/// Ragged sequences: of one token, at and around a register's width, and beyond what is kept for the backward pass.
const LENGTHS: [&[usize]; 6] = [&[1], &[5, 1, 1, 3], &[16, 17, 15], &[33, 2, 64], &[300], &[260, 9]];

#[test]
fn attention_and_pooling_over_ragged_sequences() {
    for (lengths, [heads, width]) in LENGTHS.into_iter().zip([[1, 4], [2, 8], [3, 32], [12, 32], [2, 20], [1, 64]]) {
        let layout = Packed::from_lengths(lengths.iter().copied());
        let mut random = Random::new(5, &["attention"]);
        let shape = [layout.rows(), heads * width];
        let [q, k, v, gradient] = std::array::from_fn(|_| tensor(&mut random, shape));
        let pooled = tensor(&mut random, [layout.sequences(), heads * width]);
        compare(&format!("attention {lengths:?} {heads} {width}"), &|kernels| {
            let desk = Desk { kernels };
            let [query, key, value, gradient] = [&q, &k, &v, &gradient].map(|tensor| desk.up(tensor));
            let (asking, layout) = (&layout, &layout);
            let inputs = Attention { query: &query, key: &key, value: &value, asking, layout, heads, near: None };
            let (output, saved) = kernels.attention(inputs, Keep::ForBackward).unwrap();
            let (again, nothing) = kernels.attention(inputs, Keep::Nothing).unwrap();
            assert!(nothing.is_none() && desk.down(&again) == desk.down(&output));
            let [dq, dk, dv] = kernels.attention_backward(&gradient, inputs, &saved.unwrap()).unwrap();
            let firsts = Packed::single_rows(layout.sequences());
            let one = kernels.pool(&query, layout, Pool::First).unwrap();
            let few = Attention { query: &one, asking: &firsts, ..inputs };
            let (of_first, saved) = kernels.attention(few, Keep::ForBackward).unwrap();
            let by_first = kernels.attention_backward(&desk.up(&pooled), few, &saved.unwrap()).unwrap();
            let pools = [Pool::Mean, Pool::First].map(|pool| kernels.pool(&query, layout, pool).unwrap());
            let back =
                [Pool::Mean, Pool::First].map(|pool| kernels.pool_backward(&desk.up(&pooled), layout, pool).unwrap());
            let mut all = vec![output, dq, dk, dv];
            all.extend(pools.into_iter().chain(back).chain([of_first]).chain(by_first));
            all.iter().map(|rows| desk.down(rows)).collect()
        });
    }
}

#[test]
fn tables_parts_and_losses() {
    let mut random = Random::new(6, &["tables"]);
    let [words, places] = [[9, 20], [4, 20]].map(|shape| tensor(&mut random, shape));
    let (ids, positions) = ([8, 0, 3, 3, 7], [0, 1, 2, 3, 0]);
    let logits = tensor(&mut random, [5, 37]);
    compare("tables", &|kernels| {
        let desk = Desk { kernels };
        let [words, places] = [&words, &places].map(|table| kernels.freeze_table(table.clone()).unwrap());
        let embedded = kernels.embed(&[(&words, &ids), (&places, &positions)], None).unwrap();
        let [middle, end] = [1..4, 4..5].map(|range| kernels.narrow(&embedded, range).unwrap());
        let found = kernels.cross_entropy(&desk.up(&logits), &[36, 0, 5, 5, 12]).unwrap();
        let picked = kernels.pick(&embedded, &[4, 0, 0]).unwrap();
        let back = kernels.pick_backward(&picked, &[4, 0, 0], 5).unwrap();
        let mut all: Vec<Vec<f32>> =
            [embedded, middle, end, found.gradient, picked, back].iter().map(|rows| desk.down(rows)).collect();
        all.push(found.losses.iter().map(|loss| *loss as f32).collect());
        all
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    let mut random = Random::new(7, &["alone"]);
    let (input, output) = (400, 70);
    let (weight, bias) = (tensor(&mut random, [output, input]), tensor(&mut random, [output]));
    let x = tensor(&mut random, [500, input]);
    for level in Level::all() {
        let kernels = Cpu::with(level);
        let map = kernels.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
        let rows = kernels.upload(&x).unwrap();
        let all = kernels.download(&kernels.linear(&rows, &map).unwrap()).unwrap().values;
        for (start, count) in [(0, 1), (239, 1), (240, 2), (3, 3), (100, 4), (7, 13), (250, 250)] {
            let part = kernels.narrow(&rows, start..start + count).unwrap();
            let part = kernels.download(&kernels.linear(&part, &map).unwrap()).unwrap().values;
            let expected = &all[start * output..(start + count) * output];
            assert!(part.iter().zip(expected).all(|(one, other)| one.to_bits() == other.to_bits()), "{level:?}");
        }
    }
}

#[test]
fn frozen_weights_held_as_bf16_give_what_f32_gives_to_their_rounding() {
    let mut random = Random::new(5, &["bf16"]);
    let [weight, bias, input] = [vec![48, 64], vec![48], vec![9, 64]].map(|shape| tensor(&mut random, shape));
    let answers = [Weights::F32, Weights::Bf16].map(|weights| {
        let candle = Candle::cpu_with(weights);
        let desk = Desk { kernels: &candle };
        let map = candle.freeze_linear(weight.clone(), Some(bias.clone())).unwrap();
        let rows = candle.linear(&desk.up(&input), &map).unwrap();
        let back = candle.linear_backward(&rows, &map, Some(desk.up(&input))).unwrap();
        let table = candle.freeze_table(weight.clone()).unwrap();
        [rows, back, candle.embed(&[(&table, &[3, 0, 47])], None).unwrap()].map(|rows| desk.down(&rows))
    });
    for (exact, rounded) in answers[0].iter().zip(&answers[1]) {
        let largest = exact.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert!(exact != rounded, "bf16 is not f32");
        for (exact, rounded) in exact.iter().zip(rounded) {
            assert!((exact - rounded).abs() <= 2e-2 * largest, "{rounded}, not {exact}");
        }
    }
}
