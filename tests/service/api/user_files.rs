//! Files as users have them, sent over HTTP and with the command line. `tests/fixtures/user-files/expected.md` has what happens to each;
//! `ESPALIER_UPDATE_EXPECTED=1` writes it, and the blocks of real output in `docs/datasets.md`.

pub mod cases;
mod command_line;
mod documentation;
mod outcome;

use crate::api::server_process::{ServerConfig, ServerProcess};
use cases::{Base, Case, all_cases, folder};
use outcome::Outcome;
use std::fmt::Write;
use std::path::Path;

/// What happened to a case on both ways.
struct Checked {
    case: Case,
    http: Outcome,
    /// Words of the command line that differ from those of HTTP.
    command_line: Vec<String>,
    /// What the command line writes.
    printed: String,
}

#[test]
fn table_says_what_happens_to_every_file() {
    let mut checked = Vec::new();
    for base in [Base::Encoder, Base::Protein, Base::Decoder, Base::DecoderWithTools] {
        let model = tempfile::tempdir().unwrap();
        let app = ServerConfig::new().with_base_model(base.folder(model.path())).start();
        let cases = all_cases().into_iter().filter(|case| case.base == base);
        checked.extend(cases.map(|case| check(&app, case)));
        assert_eq!(app.get("/jobs").json()["data"], serde_json::json!([]), "a validation creates no job");
        app.log().iter().for_each(|line| assert!(!line.contains("\"level\":\"ERROR\""), "{line}"));
    }
    checked.sort_by_key(|checked| checked.case.number);
    assert_or_write(&folder().join("expected.md"), &table(&checked));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/datasets.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let updated = documentation::with_sentences(&documentation::with_outputs(&text, &checked), &checked);
    assert_or_write(&page, &updated);
}

fn check(app: &ServerProcess, case: Case) -> Checked {
    let http = Outcome::of_upload(app, &case);
    let printed = command_line::run_train(app, &case);
    let command_line = command_line::compare(&case, &http, &printed);
    Checked { case, http, command_line, printed: printed.text }
}

fn assert_or_write(path: &Path, text: &str) {
    if std::env::var_os("ESPALIER_UPDATE_EXPECTED").is_some() {
        return std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let different = committed.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(
        committed == text,
        "{} is out of date: check the difference that `make expected` makes, and commit it. The first is\n{different:#?}",
        path.display()
    );
}

const INTRODUCTION: &str = "\
# What happens to the files of users

Each file is uploaded to `POST /datasets` with nothing but the settings in the second column, and given to
`espalier train FILE --validate-only` with the same settings as flags; both always agree. Rows are listed as their number, target field and
format; a refusal with its status and code. The last column has what the command line says in other words. The files for conversations,
completions and preferences are checked on a decoder, those of proteins on a protein model, all others on an encoder.

This page is written by `make expected` and compared by `tests/service/api/user_files.rs`.
";

fn table(checked: &[Checked]) -> String {
    let is_read = |checked: &&Checked| checked.http.is_read;
    let mut text = format!(
        "{INTRODUCTION}\n{} files in {} cases: {} are read, {} refused.\n",
        checked.iter().filter(|checked| checked.case.is_first).count(),
        checked.len(),
        checked.iter().filter(is_read).count(),
        checked.iter().filter(|checked| !is_read(checked)).count()
    );
    let mut folder = "";
    for Checked { case, http, command_line, .. } in checked {
        let (next, name) = case.file.split_once('/').unwrap();
        if next != folder {
            folder = next;
            let heads = "| file | settings | result | words | command line |\n|---|---|---|---|---|";
            write!(text, "\n## {folder}\n\n{heads}\n").unwrap();
        }
        let cells = [
            name.to_string(),
            case.settings(),
            http.result.clone(),
            http.sentences.join("<br>"),
            command_line.join("<br>"),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}
