//! How near the machine's limit the matrix kernel comes, on one thread: GFLOP/s of products with a frozen weight, beside
//! the most that multiply-adds in registers reach. Prints a Markdown table.
//!
//!     cargo bench --bench kernels

#![allow(unsafe_code, reason = "a chain of multiply-adds in the kernels' own registers")]

use espalier::compute::cpu::{Cpu, Lanes, Level, Work};
use espalier::compute::{Kernels, Tensor};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one figure is measured; the best of several rounds counts, because neighbours only ever slow us down.
const TIME: Duration = Duration::from_millis(150);
const ROUNDS: usize = 5;

/// Independent chains of multiply-adds: enough to keep two units busy at a latency of four cycles.
struct Chains {
    turns: usize,
}

impl Work for Chains {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: called by `Level::run`.
        unsafe {
            let (by, plus) = (L::splat(black_box(0.999)), L::splat(black_box(1e-3)));
            let mut a = [L::splat(1.0), L::splat(1.1), L::splat(1.2), L::splat(1.3)];
            let mut b = [L::splat(2.0), L::splat(2.1), L::splat(2.2), L::splat(2.3)];
            let mut turn = 0;
            while turn < self.turns {
                a = [a[0].fused(by, plus), a[1].fused(by, plus), a[2].fused(by, plus), a[3].fused(by, plus)];
                b = [b[0].fused(by, plus), b[1].fused(by, plus), b[2].fused(by, plus), b[3].fused(by, plus)];
                turn += 1;
            }
            let sum = a[0].plus(a[1]).plus(a[2]).plus(a[3]);
            sum.plus(b[0]).plus(b[1]).plus(b[2]).plus(b[3]).sum()
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

#[allow(clippy::disallowed_macros, reason = "a benchmark speaks to whoever runs it")]
fn main() -> Result<(), Box<dyn Error>> {
    let turns = 100_000;
    println!("| instruction set | peak | shape | 1 row | 2 | 4 | 16 | 64 | 240 | 512 rows |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for level in Level::all().into_iter().skip(1) {
        let peak = rate((turns * 8 * 16 * 2) as f64, || {
            black_box(level.run(Chains { turns }));
        });
        for [input, output] in [[384, 384], [384, 1536], [1536, 384]] {
            let kernels = Cpu::with(level);
            let map = kernels.freeze_linear(Tensor::zeros([output, input]), None)?;
            let mut cells = String::new();
            for rows in [1, 2, 4, 16, 64, 240, 512] {
                let x = kernels.upload(&Tensor::zeros([rows, input]))?;
                let reached = rate((2 * rows * input * output) as f64, || {
                    black_box(kernels.linear(&x, &map).ok());
                });
                cells += &format!(" {reached:.0} ({:.0} %) |", 100.0 * reached / peak);
            }
            println!("| {level:?} | {peak:.0} | {input} to {output} |{cells}");
        }
    }
    Ok(())
}
