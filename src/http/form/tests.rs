//! What a form may look like. Knows only how it is read.

use super::*;
use axum::body::Body;
use std::collections::BTreeMap;
use std::time::Duration;

type Options = BTreeMap<String, u32>;

async fn sent(parts: &[(&str, &str)], end: &str, folder: &Path) -> Answer<Form<Options>> {
    let mut body = String::new();
    for (head, content) in parts {
        body.push_str(&format!("--x\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n"));
    }
    body.push_str(end);
    let request =
        Request::builder().header("content-type", "multipart/form-data; boundary=x").body(Body::from(body)).unwrap();
    read(request, &expect(folder)).await
}

fn expect(folder: &Path) -> Expect<'_> {
    let pace = Pace::new(Duration::from_secs(60), Duration::from_secs(60));
    Expect { json_part: "options", file_part: "dataset", max_json: 20, max_file: 10, pace, folder }
}

const OPTIONS: (&str, &str) = ("name=\"options\"", "{\"a\": 1}");
const FILE: (&str, &str) = ("name=\"dataset\"; filename=\"dir/a.csv\"", "text,label");
const END: &str = "--x--\r\n";

fn left(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn parts_come_in_any_order_and_may_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for parts in [[OPTIONS, FILE], [FILE, OPTIONS]] {
        let form = sent(&parts, END, folder.path()).await.unwrap();
        assert_eq!(form.json.unwrap()["a"], 1);
        let file = form.file.unwrap();
        assert_eq!((file.bytes, file.origin.file_name.as_deref()), (10, Some("a.csv")));
    }
    let empty = sent(&[], END, folder.path()).await.unwrap();
    assert!(empty.json.is_none() && empty.file.is_none());
}

#[tokio::test]
async fn a_wrong_form_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let long = ("name=\"dataset\"", "12345678901");
    let large = ("name=\"options\"", "{\"aaaaaaaaaaaaaaaaaaaa\": 1}");
    for (parts, end, status, code) in [
        (vec![FILE, ("name=\"datset\"", "")], END, 422, "unexpected_part"),
        (vec![FILE, FILE], END, 422, "unexpected_part"),
        (vec![FILE, ("filename=\"a\"", "")], END, 422, "unexpected_part"),
        (vec![FILE, ("name=\"options\"", "{")], END, 400, "malformed_json"),
        (vec![FILE, ("name=\"options\"", "{\"a\": \"b\"}")], END, 422, "invalid_body"),
        (vec![FILE, large], END, 413, "too_large"),
        (vec![long], END, 413, "too_large"),
        (vec![FILE], "--x\r\ncontent-dispo", 400, "malformed_form"),
        (vec![FILE], "", 400, "malformed_form"),
    ] {
        let refusal = sent(&parts, end, folder.path()).await.err().unwrap();
        assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{parts:?} {end}: {}", refusal.detail);
        assert_eq!(left(folder.path()), 0);
    }
}

#[tokio::test]
async fn a_form_without_a_boundary_is_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request::builder().header("content-type", "multipart/form-data").body(Body::from("x")).unwrap();
    let refusal = read::<Options>(request, &expect(folder.path())).await.err().unwrap();
    assert_eq!((refusal.status.as_u16(), refusal.code), (400, "malformed_form"));
}
