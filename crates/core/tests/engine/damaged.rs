//! Every way in which an adapter's folder can be damaged, partial, of another base or of something that is not computed here: one
//! row each, refused with the field or the tensor named, and never a silent fall back to the base. More of them, as files of the
//! real PEFT, are in `tests/artifact.rs`; what is wrong with a zip as such is in `tests/api/bad_adapters.rs`.

mod exported;
mod files;
mod fixtures;
mod hub;
mod peft;

use fixtures::Importers;
use std::collections::BTreeSet;

#[test]
fn every_damaged_folder_is_refused_by_name() {
    let bench = Importers::new();
    let rows = [peft::configs(), peft::of_tensors(), files::rows(), hub::rows(), exported::rows()].concat();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.what).collect();
    assert_eq!(names.len(), rows.len(), "every row is a way of its own");
    assert!(rows.len() >= 80, "{} rows", rows.len());
    let faults: Vec<String> = rows.iter().filter_map(|row| bench.mismatch(row)).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), rows.len(), faults.join("\n"));
}

#[test]
fn without_damage_every_folder_is_accepted() {
    let bench = Importers::new();
    for source in fixtures::SOURCES {
        bench.import(source, &bench.files(source)).unwrap();
    }
}
