//! Migrations are additive: released files do not change, and later ones take nothing away.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// sha256 of the released files. A change of one would make the databases of its release unusable: add a file instead.
const RELEASED: [(&str, &str); 6] = [
    ("postgres/0001_start.sql", "bf3951499a1fbca8b529bdb1ca1e600557e7c805abf1d54f55fd0b9eb503dd56"),
    ("postgres/0002_reliability.sql", "d15423587b6a0f898315300bde127f832a1358b33b34705001cb107d8959b186"),
    ("postgres/0003_job_metadata.sql", "59ea37a08c24bd4a2e21f9c6789fd2462a74b0a7bd3e92035f475b87a731fd55"),
    ("sqlite/0001_start.sql", "ebc5bb610b9e3873948cbe0156d298403c919867b40d953ec2d176c7dc672d52"),
    ("sqlite/0002_reliability.sql", "79618de69e6928993767a1bee83628cb5b6fc315c53a9854074e12364b00b50f"),
    ("sqlite/0003_job_metadata.sql", "bb6d759827a5df7f2684ba126b66c124ec7be736cc15ee36ddd23ba90e9ef8db"),
];

/// First migration that must be additive.
const FIRST_ADDITIVE: u32 = 4;

/// Words that take something away from a table or its readers.
const DESTRUCTIVE_WORDS: [&str; 4] = ["drop", "rename", "truncate", "delete"];

/// Text of every migration, by database and file name.
fn migrations() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut texts = BTreeMap::new();
    for database in ["postgres", "sqlite"] {
        for entry in fs::read_dir(root.join(database)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{database}/{}", entry.file_name().to_str().unwrap());
            texts.insert(name, fs::read_to_string(entry.path()).unwrap());
        }
    }
    texts
}

fn number(name: &str) -> u32 {
    name.split('/').next_back().unwrap()[..4].parse().unwrap()
}

/// Destructive words of a migration, without its comments.
fn destructive_words(sql: &str) -> Vec<&'static str> {
    let code: String =
        sql.lines().map(|line| line.split("--").next().unwrap_or_default().to_lowercase() + "\n").collect();
    // Rows of a new table that end with the row that they refer to.
    let code = code.replace("on delete cascade", "");
    let words: Vec<&str> = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    DESTRUCTIVE_WORDS.into_iter().filter(|word| words.contains(word)).collect()
}

#[test]
fn released_migrations_are_unchanged() {
    let migrations = migrations();
    for (name, expected) in RELEASED {
        assert_eq!(
            hex::encode(Sha256::digest(&migrations[name])),
            expected,
            "{name} is released: add a new file instead"
        );
    }
}

#[test]
fn later_migrations_are_additive_and_exist_for_both_databases() {
    let migrations = migrations();
    for (name, sql) in migrations.iter().filter(|(name, _)| number(name) >= FIRST_ADDITIVE) {
        assert_eq!(destructive_words(sql), [] as [&str; 0], "{name} takes something away");
        let (database, file) = name.split_once('/').unwrap();
        let other = if database == "sqlite" { "postgres" } else { "sqlite" };
        assert!(migrations.contains_key(&format!("{other}/{file}")), "{name} has no counterpart");
    }
}

#[test]
fn destructive_statements_are_found_and_comments_are_not() {
    assert_eq!(destructive_words("ALTER TABLE jobs\n  DROP COLUMN name; -- rename"), ["drop"]);
    assert_eq!(destructive_words("alter table jobs rename column a to b; delete from jobs"), ["rename", "delete"]);
    assert!(destructive_words("create table dropped (deleted_at integer); -- drop").is_empty());
}
