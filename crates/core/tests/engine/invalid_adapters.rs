//! Adapter folders that are damaged, incomplete, for another base or not implemented: one case each, rejected with the name of the
//! field or the tensor. Damaged files of PEFT are in `artifact.rs`; invalid zips are in `tests/service/api/bad_adapters.rs`.

mod adapterhub;
mod exported;
mod files;
mod fixtures;
mod peft;

use fixtures::Importers;
use std::collections::BTreeSet;

#[test]
fn every_damaged_folder_is_rejected_by_name() {
    let importers = Importers::new();
    let cases =
        [peft::configs(), peft::tensor_cases(), files::cases(), adapterhub::cases(), exported::cases()].concat();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.what).collect();
    assert_eq!(names.len(), cases.len(), "every case has its own name");
    assert!(cases.len() >= 80, "{} cases", cases.len());
    let mismatches: Vec<String> = cases.iter().filter_map(|case| importers.mismatch(case)).collect();
    assert!(mismatches.is_empty(), "{} of {}:\n{}", mismatches.len(), cases.len(), mismatches.join("\n"));
}

#[test]
fn every_undamaged_folder_is_accepted() {
    let importers = Importers::new();
    for source in fixtures::SOURCES {
        importers.import(source, &importers.files(source)).unwrap();
    }
}
