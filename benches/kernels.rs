//! How near the machine's limit the matrix kernel comes, on one thread: GFLOP/s of products with a frozen weight, beside
//! the most that multiply-adds in registers reach. Prints a Markdown table.
//!
//!     cargo bench --bench kernels

#![allow(unsafe_code, reason = "a chain of multiply-adds in the kernels' own registers")]

use espalier_tensor::backend::WeightOps;
use espalier_tensor::backend::cpu::{CpuBackend, Isa, Simd, SimdKernel};
use espalier_tensor::{Backend, Tensor};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one figure is measured; the best of several rounds counts, because neighbours only ever slow us down.
const TIME: Duration = Duration::from_millis(150);
const ROUNDS: usize = 5;
const ROWS: [usize; 8] = [1, 2, 4, 14, 16, 64, 240, 512];

/// Independent chains of multiply-adds, as many as are asked for: two units with a latency of four cycles want eight
/// registers of them, and no more fit than the machine has.
struct Chains<const COUNT: usize> {
    turns: usize,
}

impl<const COUNT: usize> SimdKernel for Chains<COUNT> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> f32 {
        // SAFETY: called by `Level::run`.
        unsafe {
            let (by, plus) = (L::splat(black_box(0.999)), L::splat(black_box(1e-3)));
            let mut chains = [L::splat(1.0); COUNT];
            let mut turn = 0;
            while turn < self.turns {
                let mut chain = 0;
                while chain < COUNT {
                    chains[chain] = chains[chain].mul_add(by, plus);
                    chain += 1;
                }
                turn += 1;
            }
            let mut sum = chains[0];
            let mut chain = 1;
            while chain < COUNT {
                sum = sum.add(chains[chain]);
                chain += 1;
            }
            sum.reduce_sum()
        }
    }
}

/// Operations per second, in units of 10⁹.
fn rate(operations: f64, mut work: impl FnMut()) -> f64 {
    let mut best = 0f64;
    for _ in 0..ROUNDS {
        let (start, mut times) = (Instant::now(), 0u32);
        while start.elapsed() < TIME {
            work();
            times += 1;
        }
        best = best.max(f64::from(times) * operations / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Weights that no cache holds, one after the other, as a forward pass of a short text meets them.
fn through_many(kernels: CpuBackend, rows: usize) -> Result<f64, Box<dyn Error>> {
    let maps = (0..24).map(|_| kernels.freeze_linear(Tensor::zeros([1536, 384]), None));
    let maps = maps.collect::<Result<Vec<_>, _>>()?;
    let x = kernels.upload(&Tensor::zeros([rows, 384]))?;
    let operations = (2 * rows * 384 * 1536 * maps.len()) as f64;
    Ok(rate(operations, || {
        for map in &maps {
            black_box(kernels.linear(&x, map).ok());
        }
    }))
}

#[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
fn main() -> Result<(), Box<dyn Error>> {
    let turns = 100_000;
    println!("| instruction set | peak | shape | 1 row | 2 | 4 | 14 | 16 | 64 | 240 | 512 rows |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for level in Isa::available().into_iter().skip(1) {
        let operations = |chains: usize| (turns * chains * 16 * 2) as f64;
        let few = rate(operations(5), || {
            black_box(level.run(Chains::<5> { turns }));
        });
        let many = rate(operations(10), || {
            black_box(level.run(Chains::<10> { turns }));
        });
        let peak = few.max(many);
        for [input, output] in [[384, 384], [384, 1536], [1536, 384]] {
            let kernels = CpuBackend::with_isa(level);
            let map = kernels.freeze_linear(Tensor::zeros([output, input]), None)?;
            let mut cells = String::new();
            for rows in ROWS {
                let x = kernels.upload(&Tensor::zeros([rows, input]))?;
                let reached = rate((2 * rows * input * output) as f64, || {
                    black_box(kernels.linear(&x, &map).ok());
                });
                cells += &format!(" {reached:.0} ({:.0} %) |", 100.0 * reached / peak);
            }
            println!("| {level:?} | {peak:.0} | {input} to {output} |{cells}");
        }
        let mut cells = String::new();
        for rows in ROWS {
            let reached = through_many(CpuBackend::with_isa(level), rows)?;
            cells += &format!(" {reached:.0} ({:.0} %) |", 100.0 * reached / peak);
        }
        println!("| {level:?} | {peak:.0} | 384 to 1536, 24 in turn |{cells}");
    }
    Ok(())
}
