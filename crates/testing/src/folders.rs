//! Zip archives of adapters, and the JSON test cases beside them.

use espalier_core::task::Input;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// Files of a zip archive by name.
pub fn read_zip(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut read_entry = |index: usize| {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.name().unwrap().into_owned(), bytes)
    };
    (0..ZipArchive::new(File::open(path).unwrap()).unwrap().len()).map(&mut read_entry).collect()
}

pub fn write_zip(files: &BTreeMap<String, Vec<u8>>, path: &Path) {
    let mut writer = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        writer.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `[text, text or null]`
pub fn input_from_json(item: &Value) -> Input {
    let text = |index: usize| item[index].as_str().map(str::to_string);
    Input { text: text(0).unwrap(), text_pair: text(1), tokens: None }
}

pub fn max_abs_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
}
