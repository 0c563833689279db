use espalier::compute::cpu::Cpu;
use espalier::model::{Base, Pooling};
use espalier::task::{self, Example, Target, sequence_classification};
use espalier::training::spec::Request;
use espalier::training::{Data, Folders, Outcome, Progress, Settings, Spec, Validation, train};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
fn main() -> Result<(), Box<dyn Error>> {
    let a: Vec<String> = std::env::args().skip(1).filter(|x| !x.starts_with("--bench")).collect();
    let base = Arc::new(Base::load(Path::new("models/all-MiniLM-L6-v2"), "m", Arc::new(Cpu::best()))?);
    let read = |p: &str| -> Result<Vec<Example>, Box<dyn Error>> {
        let mut v = vec![];
        for (i, r) in csv::Reader::from_path(p)?.records().enumerate() {
            let r = r?;
            v.push(Example {
                line: i as u64 + 2,
                text: r[0].to_string(),
                text_pair: None,
                target: Target::Label(r[1].to_string()),
            });
        }
        Ok(v)
    };
    let (tr, te) = (read(&a[0])?, read(&a[1])?);
    for pair in a[2..].chunks(2) {
        let labels: Vec<String> = tr
            .iter()
            .map(|e| {
                let Target::Label(l) = &e.target;
                l.clone()
            })
            .collect();
        let pooling = Some(if pair[1].contains("#cls") { Pooling::Cls } else { Pooling::Mean });
        let hyper = pair[1].replace("#cls", "");
        let request = Request {
            task: Some(task::Config::SequenceClassification(sequence_classification::Config { pooling })),
            method: Some(serde_json::from_str(&pair[0])?),
            hyperparameters: serde_json::from_str(&hyper)?,
            validation: Some(Validation::DatasetId(uuid::Uuid::nil())),
        };
        let spec = Spec::resolve(&request, &labels, tr.len(), &base)?;
        let dir = tempfile::tempdir()?;
        let folders = Folders { checkpoints: dir.path().join("run"), remembered: "/tmp/remembered".into() };
        let settings = Settings { threads: 2, checkpoint_every: Duration::from_secs(3600), remembered_bytes: 1 << 33 };
        let t = Instant::now();
        println!("== {} {}", pair[0], pair[1]);
        let out = train(
            &base,
            &spec,
            &Data { examples: tr.clone(), validation: Some(te.clone()) },
            &folders,
            &settings,
            &mut |p: &Progress| {
                for r in &p.rows {
                    if r.split == "validation" {
                        println!(
                            "  {:.1}s step {} acc {:.4} loss {:.4}",
                            t.elapsed().as_secs_f64(),
                            r.step,
                            r.metrics["accuracy"].as_f64().unwrap(),
                            r.metrics["loss"].as_f64().unwrap()
                        );
                    }
                }
                ControlFlow::Continue(())
            },
        )?;
        let Outcome::Finished(tr) = out else { panic!() };
        if let Some(r) = tr.rows.iter().filter(|r| r.split == "validation").last() {
            println!("  end {:.1}s step {} acc {}", t.elapsed().as_secs_f64(), r.step, r.metrics["accuracy"]);
        }
    }
    Ok(())
}
