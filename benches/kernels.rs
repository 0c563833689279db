//! GFLOP/s of products with a frozen weight on one thread, in `f32` and with int8 activations, and their share of the peak
//! that multiply-adds of `f32` in registers reach. Prints a Markdown table.
//!
//!     cargo bench --bench kernels

#![allow(unsafe_code, reason = "chains of multiply-adds in the kernels' SIMD vectors")]

use espalier_tensor::backend::cpu::{CpuBackend, Isa, Simd, SimdKernel};
use espalier_tensor::quant::StoredWeight;
use espalier_tensor::{Backend, LoraPrecision, Tensor};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measuring time of one figure. The best of several rounds counts, because other processes can only slow it down.
const TIME: Duration = Duration::from_millis(150);
const ROUNDS: usize = 5;
const ROWS: [usize; 8] = [1, 2, 4, 14, 16, 64, 240, 512];

/// `COUNT` independent chains of multiply-adds. Two units with a latency of four cycles need eight vectors to be busy, and
/// the registers limit their number.
struct Chains<const COUNT: usize> {
    iterations: usize,
}

impl<const COUNT: usize> SimdKernel for Chains<COUNT> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Simd>(self) -> f32 {
        // SAFETY: only arithmetic on vectors, and `Isa::run` calls this only on CPUs that support `L`.
        unsafe {
            let (by, plus) = (L::splat(black_box(0.999)), L::splat(black_box(1e-3)));
            let mut chains = [L::splat(1.0); COUNT];
            let mut iteration = 0;
            while iteration < self.iterations {
                let mut chain = 0;
                while chain < COUNT {
                    chains[chain] = chains[chain].mul_add(by, plus);
                    chain += 1;
                }
                iteration += 1;
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

/// 10⁹ operations per second.
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

/// Products with many weights in turn, more than any cache holds, as in a forward pass of a short text.
fn rate_of_many_weights(backend: &dyn Backend, rows: usize) -> Result<f64, Box<dyn Error>> {
    let maps = (0..24).map(|_| backend.load_linear(StoredWeight::Dense(Tensor::zeros([1536, 384])), None));
    let maps = maps.collect::<Result<Vec<_>, _>>()?;
    let x = backend.upload(&Tensor::zeros([rows, 384]))?;
    let operations = (2 * rows * 384 * 1536 * maps.len()) as f64;
    Ok(rate(operations, || {
        for map in &maps {
            black_box(backend.linear(&x, map).ok());
        }
    }))
}

#[allow(clippy::disallowed_macros, reason = "a benchmark prints its results")]
fn main() -> Result<(), Box<dyn Error>> {
    let iterations = 100_000;
    println!("| instruction set and activations | peak | shape | 1 row | 2 | 4 | 14 | 16 | 64 | 240 | 512 rows |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for level in Isa::available().into_iter().skip(1) {
        let operations = |chains: usize| (iterations * chains * 16 * 2) as f64;
        let few = rate(operations(5), || {
            black_box(level.run(Chains::<5> { iterations }));
        });
        let many = rate(operations(10), || {
            black_box(level.run(Chains::<10> { iterations }));
        });
        let peak = few.max(many);
        let f32: Arc<dyn Backend> = Arc::new(CpuBackend::with_isa(level));
        let int8 = f32.with_int8_activations(LoraPrecision::F32).ok_or("the CPU has int8 kernels")?;
        for (name, backend) in [("f32", f32), ("int8", int8)] {
            for [input, output] in [[384, 384], [384, 1536], [1536, 384]] {
                let map = backend.load_linear(StoredWeight::Dense(Tensor::zeros([output, input])), None)?;
                let mut cells = String::new();
                for rows in ROWS {
                    let x = backend.upload(&Tensor::zeros([rows, input]))?;
                    let reached = rate((2 * rows * input * output) as f64, || {
                        black_box(backend.linear(&x, &map).ok());
                    });
                    cells += &format!(" {reached:.0} ({:.0} %) |", 100.0 * reached / peak);
                }
                println!("| {level:?}, {name} | {peak:.0} | {input} to {output} |{cells}");
            }
            let mut cells = String::new();
            for rows in ROWS {
                let reached = rate_of_many_weights(backend.as_ref(), rows)?;
                cells += &format!(" {reached:.0} ({:.0} %) |", 100.0 * reached / peak);
            }
            println!("| {level:?}, {name} | {peak:.0} | 384 to 1536, 24 in turn |{cells}");
        }
    }
    Ok(())
}
