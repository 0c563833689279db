//! Checks after the last fault: every job has ended once, every blob is there, and nothing is left after its deletion.

use crate::client::Client;
use crate::cluster::{Cluster, REPLICAS};
use crate::load::Load;
use crate::reference::{self, Reference};
use crate::report::Report;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time within which the queued jobs end.
const JOBS_TIMEOUT: Duration = Duration::from_secs(600);

/// Time within which deleted blobs are gone.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(120);

const ENDS: [&str; 3] = ["succeeded", "failed", "cancelled"];

pub fn run(cluster: &Cluster, load: &Load, reference: &Reference, report: &Report) {
    assert!(cluster.is_durable(), "the database of this test may lose commits");
    let mut client = Client::new(cluster, report);
    let healed = Instant::now();
    while load.poll_unfinished_jobs(&mut client) > 0 {
        if healed.elapsed() > JOBS_TIMEOUT {
            report.add_violation(format!("unfinished: {:?}", load.oldest_unfinished()));
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    report.add_line(format!("the last job ended {:.0} s after the last fault", healed.elapsed().as_secs_f64()));
    load.report_totals();
    // Both replicas know every name by then.
    std::thread::sleep(Duration::from_secs(3));
    for name in load.names_with_versions() {
        for replica in 0..REPLICAS {
            client.choose_replica(replica);
            load.predict_with(&mut client, name, name % reference::text_count());
        }
    }
    check_jobs(&mut client, load, report);
    check_blobs(cluster, reference, report);
    delete_everything(&mut client, report);
    // As if the hour had passed.
    cluster.execute("delete from blob_reservations");
    let deleted = Instant::now();
    while !cluster.s3.objects("blobs").is_empty() && deleted.elapsed() < COLLECTION_TIMEOUT {
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = cluster.s3.objects("blobs");
    report.check(left.is_empty(), || format!("objects are left: {left:?}"));
    for table in ["jobs", "adapters", "adapter_names", "datasets", "blob_reservations"] {
        let rows = cluster.count_rows(table);
        report.check(rows == 0, || format!("{rows} rows of {table} are left"));
    }
}

/// All rows of a list, page by page. The path may have a query.
fn list(client: &mut Client, path: &str) -> Vec<Value> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let (mut rows, mut after, mut page_path) = (Vec::new(), None, path.to_string());
    while let Some(page) = client.get(&page_path) {
        rows.extend(page.body["data"].as_array().unwrap().iter().cloned());
        let next = page.body["next"].as_str().map(str::to_string);
        match &next {
            Some(next_text) if next != after => page_path = format!("{path}{separator}after={next_text}"),
            _ => break,
        }
        after = next;
    }
    rows
}

fn texts(rows: &[Value], field: &str) -> BTreeSet<String> {
    rows.iter().map(|row| row[field].as_str().unwrap_or_default().to_string()).collect()
}

/// Every job was created once, ended once, and has at most one adapter.
fn check_jobs(client: &mut Client, load: &Load, report: &Report) {
    let (jobs, adapters) = (list(client, "/jobs?limit=100"), list(client, "/adapters?limit=100"));
    let submitted = load.jobs.lock().unwrap().clone();
    report.check(jobs.len() == submitted.len(), || format!("{} jobs of {} submissions", jobs.len(), submitted.len()));
    let succeeded: BTreeSet<String> =
        submitted.iter().filter(|job| job.status.as_deref() == Some("succeeded")).map(|job| job.id.clone()).collect();
    report.check(adapters.len() == succeeded.len() && texts(&adapters, "job_id") == succeeded, || {
        format!("{} adapters of {} jobs that succeeded", adapters.len(), succeeded.len())
    });
    let (mut attempts, mut most) = (0, 0);
    for job in &submitted {
        let events = list(client, &format!("/jobs/{}/events", job.id));
        let statuses: Vec<&str> = events
            .iter()
            .filter(|event| event["kind"] == "status")
            .map(|event| event["data"]["status"].as_str().unwrap_or_default())
            .collect();
        let ends: Vec<&&str> = statuses.iter().filter(|status| ENDS.contains(status)).collect();
        let is_right = ends.len() == 1 && job.status.as_deref() == Some(*ends[0]);
        report.check(is_right, || format!("job {} was {:?} and has the events {statuses:?}", job.id, job.status));
        let runs = statuses.iter().filter(|status| **status == "running").count();
        attempts += runs;
        most = most.max(runs);
    }
    report.add_line(format!("{attempts} attempts of {} jobs, at most {most} of one", submitted.len()));
}

/// The objects have the bytes that they should have, and none is in quarantine.
fn check_blobs(cluster: &Cluster, reference: &Reference, report: &Report) {
    let read = |key: &Path| std::fs::read(cluster.s3.file(Path::new("blobs").join(key))).unwrap();
    let objects = cluster.s3.objects("blobs");
    let mut counts = [0; 2];
    for key in &objects {
        let parts: Vec<&str> = key.iter().map(|part| part.to_str().unwrap()).collect();
        let is_right = match parts[..] {
            ["datasets", hash] => {
                counts[0] += 1;
                hex::encode(Sha256::digest(read(key))) == hash
            }
            ["adapters", version, file] => {
                counts[1] += 1;
                let expected = reference.by_version(&format!("sha256:{version}"));
                expected.is_some_and(|index| reference.jobs[index].files.get(file) == Some(&read(key)))
            }
            _ => false,
        };
        report.check(is_right, || format!("the object {} should not be there, or has other bytes", key.display()));
    }
    report.add_line(format!("objects: {} datasets, {} files of adapters", counts[0], counts[1]));
}

fn delete_everything(client: &mut Client, report: &Report) {
    for kind in ["adapters", "jobs", "datasets"] {
        for row in list(client, &format!("/{kind}?limit=100")) {
            let path = format!("/{kind}/{}", row["id"].as_str().unwrap());
            let status = client.delete(&path).map(|answer| answer.status);
            report.check(status == Some(204), || format!("DELETE {path}: {status:?}"));
        }
    }
}
