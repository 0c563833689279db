//! `espalier serve`: puts the rooms together, and takes them apart again without losing anything.
//!
//! Everything that can be wrong at the start is one line on standard error. Knows nothing of what the rooms do.

use super::failure::{Failure, Outcome};
use super::{logs, signals};
use crate::config::{Config, Role, Secret, Settings};
use crate::http::{self, Keys, Metrics, State, Turns};
use crate::serving::Serving;
use crate::store::blobs::{DataFolder, Swept};
use crate::store::{self, Store};
use crate::worker::{Workers, Workshop};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::{Base, hub};
use espalier_tensor::device;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Blobs that no row needs are swept once they are this old: younger ones may be waiting for their row.
const SWEPT_AFTER: Duration = Duration::from_secs(3600);
/// Within this the running jobs write a checkpoint and are handed back; a job that does not is taken back at the next
/// start.
const HAND_BACK: Duration = Duration::from_secs(9);
/// For what still runs on the threads that block: it is not waited for.
const LEFT_OVER: Duration = Duration::from_millis(200);

/// What runs.
struct House {
    store: Arc<dyn Store>,
    base: Arc<Base>,
    folder: Arc<DataFolder>,
    settings: Settings,
}

pub fn run(config: &Config) -> Outcome {
    logs::start(&config.logs)?;
    let settings = config.settings()?;
    let listener = listen(settings.listen)?;
    let runtime = Runtime::new().map_err(|error| Failure::failed(format!("threads cannot be started: {error}")))?;
    let base = load(&settings)?;
    let folder = Arc::new(DataFolder::open(&settings.data_dir)?);
    let served = runtime.block_on(async {
        let store = open(&settings.database_url, &folder).await?;
        serve(House { store, base, folder, settings }, listener).await
    });
    runtime.shutdown_timeout(LEFT_OVER);
    Ok(served?)
}

/// Taken first: a port that is in use should be known before a model is loaded.
fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::failed(format!(
            "{address} is in use: stop what listens there (another espalier?), or listen elsewhere with --listen"
        )),
        _ => Failure::failed(format!("cannot listen on {address}: {error}; choose another address with --listen")),
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    Ok(listener)
}

/// Finds and loads the base model.
///
/// # Errors
/// `Invalid` where there is none of that name, or it is not one that can be loaded.
pub fn load(settings: &Settings) -> Result<Arc<Base>> {
    let started = Instant::now();
    let located = hub::locate(&settings.model, &settings.hub)?;
    let base = Base::load(&located.folder, &located.name, device::kernels(settings.device, settings.weights)?)?;
    let info = base.info();
    tracing::info!(
        name = info.name,
        folder = %located.folder.display(),
        fingerprint = info.fingerprint,
        parameters = info.parameters,
        kernels = info.kernels,
        seconds = started.elapsed().as_secs_f64(),
        "base model loaded"
    );
    Ok(Arc::new(base))
}

/// Connects, takes the jobs of dead processes back, and removes what a crash left in the data folder.
async fn open(url: &Secret, folder: &Arc<DataFolder>) -> Result<Arc<dyn Store>> {
    let store = store::connect(url.expose()).await?;
    let mut taken_back = 0;
    for instance in folder.abandoned() {
        taken_back += store.take_back(*instance).await?;
    }
    let checkpointed = folder.checkpointed_jobs()?;
    let needed = store::needed(store.as_ref()).await?;
    let sweeping = Arc::clone(folder);
    let sweep = move || {
        let over: Vec<Uuid> = checkpointed.into_iter().filter(|job| !needed.open_jobs.contains(job)).collect();
        over.iter().try_for_each(|job| sweeping.remove_checkpoints(*job))?;
        let swept = sweeping.sweep(&needed, SWEPT_AFTER)?;
        Ok::<_, Error>(Swept { checkpoints: swept.checkpoints + over.len(), ..swept })
    };
    let swept = tokio::task::spawn_blocking(sweep).await.context("sweeping the data folder")??;
    tracing::info!(
        database = store.kind(),
        instance = %folder.instance(),
        taken_back,
        swept_datasets = swept.datasets,
        swept_adapters = swept.adapters,
        swept_checkpoints = swept.checkpoints,
        "store opened"
    );
    Ok(store)
}

async fn serve(house: House, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
    let address = listener.local_addr().context("listening")?;
    let shutdown = CancellationToken::new();
    let mut signals = signals::listen().context("waiting for signals")?;
    let workers = start_workers(&house);
    let grace = house.settings.grace;
    let role = house.settings.role;
    let wake = workers.as_ref().map_or_else(|| Arc::new(|| {}) as Arc<dyn Fn() + Send + Sync>, Workers::waker);
    let state = state(house, wake, shutdown.clone())?;
    let router = match role {
        Role::All | Role::Api => http::router(state),
        Role::Worker => http::worker_router(state),
    };
    tracing::info!(%address, role = role.name(), version = env!("CARGO_PKG_VERSION"), "listening");
    let mut serving = tokio::spawn(http::serve(listener, router, shutdown.clone(), grace));
    tokio::select! {
        served = &mut serving => return served.context("serving")?,
        signal = signals.next() => tracing::info!(signal, "stopping: a second signal ends at once"),
    }
    signals.end_at_next();
    shutdown.cancel();
    let (served, ()) = tokio::join!(serving, hand_back(workers));
    served.context("serving")??;
    tracing::info!("stopped");
    Ok(())
}

fn start_workers(house: &House) -> Option<Workers> {
    let workshop = || Workshop {
        base: Arc::clone(&house.base),
        store: Arc::clone(&house.store),
        folder: Arc::clone(&house.folder),
        settings: house.settings.worker.clone(),
    };
    match house.settings.role {
        Role::Api => None,
        Role::All | Role::Worker => Some(Workers::start(workshop())),
    }
}

fn state(house: House, wake: Arc<dyn Fn() + Send + Sync>, shutdown: CancellationToken) -> Result<State> {
    let House { store, base, folder, settings } = house;
    let adapters = folder.adapters();
    let serving = Serving::start(Arc::clone(&base), Arc::clone(&store), adapters, settings.serving)?;
    let keys = Keys::new(settings.keys.iter().map(Secret::expose))?;
    if keys.is_open() && !settings.listen.ip().is_loopback() {
        tracing::warn!(address = %settings.listen, "no api key is set: whoever reaches this address is let in");
    }
    Ok(State {
        store,
        base,
        folder,
        serving,
        wake,
        turns: Arc::new(Turns::new(&settings.http)),
        settings: Arc::new(settings.http),
        data: Arc::new(settings.data),
        artifact: settings.artifact,
        keys: Arc::new(keys),
        shutdown,
        metrics: Arc::new(Metrics::default()),
    })
}

async fn hand_back(workers: Option<Workers>) {
    let Some(workers) = workers else { return };
    match tokio::time::timeout(HAND_BACK, workers.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "jobs were not handed back: the next start takes them"),
        Err(_) => tracing::warn!("jobs did not stop in time: the next start takes them back"),
    }
}
