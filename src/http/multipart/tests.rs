//! Tests of [`read_form`].

use super::*;
use axum::body::Body;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

type Options = BTreeMap<String, u32>;

async fn send_form(parts: &[(&str, &str)], closing: &str, folder: &Path) -> ApiResult<MultipartForm<Options>> {
    let mut body = String::new();
    for (head, content) in parts {
        body.push_str(&format!("--x\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n"));
    }
    body.push_str(closing);
    let request =
        Request::builder().header("content-type", "multipart/form-data; boundary=x").body(Body::from(body)).unwrap();
    read_form(request, form_spec(folder)).await
}

fn form_spec(folder: &Path) -> FormSpec {
    let timeouts = BodyTimeouts::new(Duration::from_secs(60), 1, Duration::from_secs(60));
    FormSpec {
        json_part: "options",
        file_part: "dataset",
        max_json_bytes: 20,
        max_file_bytes: 10,
        timeouts,
        temp_dir: folder.to_path_buf(),
    }
}

const OPTIONS: (&str, &str) = ("name=\"options\"", "{\"a\": 1}");
const FILE: (&str, &str) = ("name=\"dataset\"; filename=\"dir/a.csv\"", "text,label");
const END: &str = "--x--\r\n";

fn file_count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn parts_are_optional_and_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    for parts in [[OPTIONS, FILE], [FILE, OPTIONS]] {
        let form = send_form(&parts, END, folder.path()).await.unwrap();
        assert_eq!(form.json.unwrap()["a"], 1);
        let file = form.file.unwrap();
        assert_eq!((file.bytes, file.metadata.file_name.as_deref()), (10, Some("a.csv")));
    }
    let empty = send_form(&[], END, folder.path()).await.unwrap();
    assert!(empty.json.is_none() && empty.file.is_none());
}

#[tokio::test]
async fn invalid_form_is_rejected_and_its_file_deleted() {
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
        let error = send_form(&parts, end, folder.path()).await.err().unwrap();
        assert_eq!((error.status.as_u16(), error.code), (status, code), "{parts:?} {end}: {}", error.detail);
        assert_eq!(file_count(folder.path()), 0);
    }
}

#[tokio::test]
async fn form_without_boundary_is_a_bad_request() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request::builder().header("content-type", "multipart/form-data").body(Body::from("x")).unwrap();
    let error = read_form::<Options>(request, form_spec(folder.path())).await.err().unwrap();
    assert_eq!((error.status.as_u16(), error.code), (400, "malformed_form"));
}
