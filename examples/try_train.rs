use espalier::{adapter, compute::candle::Candle, model::Base, task::*, training::*};
use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::*};
fn read(p: &str) -> Vec<Example> {
    let mut r = csv::Reader::from_path(p).unwrap();
    r.records()
        .enumerate()
        .map(|(i, x)| {
            let x = x.unwrap();
            Example { line: i as u64 + 2, text: x[0].into(), text_pair: None, target: Target::Label(x[1].into()) }
        })
        .collect()
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let base = Arc::new(Base::load(a[1].as_ref(), "x", Arc::new(Candle::cpu())).unwrap());
    let mut examples = read(&a[2]);
    let limit: usize = a[4].parse().unwrap();
    if limit > 0 {
        let step = examples.len() / limit;
        examples = examples.into_iter().step_by(step).collect();
    }
    let labels: Vec<String> = examples
        .iter()
        .map(|e| {
            let Target::Label(l) = &e.target;
            l.clone()
        })
        .collect();
    let request: serde_json::Value = serde_json::from_str(&a[5]).unwrap();
    let request = spec::Request {
        task: None,
        method: request.get("method").map(|m| serde_json::from_value::<adapter::Config>(m.clone()).unwrap()),
        hyperparameters: serde_json::from_value(request["hyperparameters"].clone()).unwrap_or_default(),
        validation: None,
    };
    let spec = Spec::resolve(&request, &labels, examples.len(), &base).unwrap();
    println!("{}", serde_json::to_string(&spec.hyperparameters).unwrap());
    let t = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let mut rep = |p: &Progress| {
        for r in &p.rows {
            if r.split == "validation" || r.step % 50 == 0 {
                println!(
                    "{:.1}s {} {} {} {:.0}/s",
                    t.elapsed().as_secs_f64(),
                    r.step,
                    r.split,
                    r.metrics,
                    p.examples_per_second
                )
            }
        }
        ControlFlow::Continue(())
    };
    let Outcome::Finished(done) = train(
        &base,
        &spec,
        &Data { examples, validation: None },
        dir.path().join("c"),
        &Settings { threads: 2, checkpoint_every: Duration::from_secs(10) },
        &mut rep,
    )
    .unwrap() else {
        panic!()
    };
    println!("trained {:.1}s best {} T {}", t.elapsed().as_secs_f64(), done.metrics["best_step"], done.temperature);
    let v = &done.metrics["validation"];
    println!("val acc {} calib {}", v["accuracy"], v["calibration"]);
    let test = read(&a[3]);
    let (net, built) = network::Network::build(
        &base,
        &spec,
        adapter::Parameters::restore(done.weights.into_iter().collect::<BTreeMap<_, _>>()),
    )
    .unwrap();
    let up = net.upload(&built.tensors).unwrap();
    let mut right = 0;
    let mut n = 0;
    for chunk in test.chunks(64) {
        let toks = chunk.iter().map(|e| Arc::new(base.tokenizer().encode(&e.text, None, 128).unwrap())).collect();
        let l = net.logits(&up, &network::Source::Tokens(toks)).unwrap();
        for (row, e) in l.chunks(spec.labels.len()).zip(chunk) {
            let Target::Label(x) = &e.target;
            if !spec.labels.contains(x) {
                continue;
            }
            n += 1;
            if &spec.labels[metrics::argmax(row)] == x {
                right += 1
            }
        }
    }
    println!("test {} of {} = {:.4}", right, n, right as f64 / n as f64);
}
