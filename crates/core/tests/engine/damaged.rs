//! Every way in which an adapter's folder can be damaged, partial, of another base or of something that is not computed here: one
//! row each, refused with the field or the tensor named, and never a silent fall back to the base. More of them, as files of the
//! real PEFT, are in `tests/artifact.rs`; what is wrong with a zip as such is in `tests/api/bad_adapters.rs`.

mod bench;
mod files;
mod hub;
mod ours;
mod peft;

use bench::Bench;
use std::collections::BTreeSet;

#[test]
fn every_damaged_folder_is_refused_by_name() {
    let bench = Bench::new();
    let rows = [peft::configs(), peft::of_tensors(), files::rows(), hub::rows(), ours::rows()].concat();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.what).collect();
    assert_eq!(names.len(), rows.len(), "every row is a way of its own");
    assert!(rows.len() >= 80, "{} rows", rows.len());
    let faults: Vec<String> = rows.iter().filter_map(|row| bench.fault(row)).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
}

#[test]
fn without_damage_every_folder_is_accepted() {
    let bench = Bench::new();
    for source in bench::SOURCES {
        bench.import(source, &bench.files(source)).unwrap();
    }
}
