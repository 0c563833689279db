//! `espalier serve`: puts the rooms together, and takes them apart again without losing anything.
//!
//! Everything that can be wrong at the start is one line on standard error. Knows nothing of what the rooms do.

use super::error::{CliError, CliResult};
use super::{logging, signals};
use crate::config::{Config, Role, Secret, Settings};
use crate::http::{self, ApiKeys, AppState, ConcurrencyLimits, Metrics};
use crate::serving::InferenceService;
use crate::store::blobs::{DataDir, GcReport};
use crate::store::{self, Store};
use crate::worker::{WorkerContext, Workers};
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::{BaseModel, hub};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Blobs that no row needs are swept once they are this old: younger ones may be waiting for their row.
const GC_MIN_AGE: Duration = Duration::from_secs(3600);
/// Within this the running jobs write a checkpoint and are handed back; a job that does not is taken back at the next
/// start.
const WORKER_STOP_TIMEOUT: Duration = Duration::from_secs(9);
/// For what still runs on the threads that block: it is not waited for.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// What runs.
struct Components {
    store: Arc<dyn Store>,
    base: Arc<BaseModel>,
    data_dir: Arc<DataDir>,
    settings: Settings,
}

pub fn run(config: &Config) -> CliResult {
    logging::init_logging(&config.logs)?;
    let settings = config.resolve()?;
    let listener = bind(settings.listen)?;
    let runtime = Runtime::new().map_err(|error| CliError::failed(format!("threads cannot be started: {error}")))?;
    let base = load_base_model(&settings)?;
    let data_dir = Arc::new(DataDir::open(&settings.data_dir)?);
    let result = runtime.block_on(async {
        let store = open_store(&settings.database_url, &data_dir).await?;
        serve(Components { store, base, data_dir, settings }, listener).await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    Ok(result?)
}

/// Taken first: a port that is in use should be known before a model is loaded.
fn bind(address: SocketAddr) -> CliResult<TcpListener> {
    let bind_error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => CliError::failed(format!(
            "{address} is in use: stop what listens there (another espalier?), or listen elsewhere with --listen"
        )),
        _ => CliError::failed(format!("cannot listen on {address}: {error}; choose another address with --listen")),
    };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    listener.set_nonblocking(true).map_err(bind_error)?;
    Ok(listener)
}

/// Finds and loads the base model.
///
/// # Errors
/// `Invalid` where there is none of that name, or it is not one that can be loaded.
pub fn load_base_model(settings: &Settings) -> Result<Arc<BaseModel>> {
    let started = Instant::now();
    let located = hub::locate(&settings.model, &settings.hub)?;
    let base = BaseModel::load(
        &located.path,
        &located.name,
        espalier_tensor::create_backend(settings.device, settings.weight_format)?,
    )?;
    let info = base.info();
    tracing::info!(
        name = info.name,
        folder = %located.path.display(),
        fingerprint = info.fingerprint,
        parameters = info.parameters,
        kernels = info.backend,
        seconds = started.elapsed().as_secs_f64(),
        "base model loaded"
    );
    Ok(Arc::new(base))
}

/// Connects, takes the jobs of dead processes back, and removes what a crash left in the data folder.
async fn open_store(database_url: &Secret, data_dir: &Arc<DataDir>) -> Result<Arc<dyn Store>> {
    let store = store::connect(database_url.expose()).await?;
    let mut expired_leases = 0;
    for instance in data_dir.stale_instances() {
        expired_leases += store.expire_leases_of_instance(*instance).await?;
    }
    let jobs_with_checkpoints = data_dir.jobs_with_checkpoints()?;
    let live = store::live_blobs(store.as_ref()).await?;
    let gc_dir = Arc::clone(data_dir);
    let collect = move || {
        let finished: Vec<Uuid> =
            jobs_with_checkpoints.into_iter().filter(|job| !live.unfinished_jobs.contains(job)).collect();
        finished.iter().try_for_each(|job| gc_dir.remove_checkpoints(*job))?;
        let swept = gc_dir.garbage_collect(&live, GC_MIN_AGE)?;
        Ok::<_, Error>(GcReport { checkpoints: swept.checkpoints + finished.len(), ..swept })
    };
    let report = tokio::task::spawn_blocking(collect).await.context("sweeping the data folder")??;
    tracing::info!(
        database = store.backend_name(),
        instance = %data_dir.instance_id(),
        expired_leases,
        swept_datasets = report.datasets,
        swept_adapters = report.adapters,
        swept_checkpoints = report.checkpoints,
        "store opened"
    );
    Ok(store)
}

async fn serve(components: Components, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
    let address = listener.local_addr().context("listening")?;
    let shutdown = CancellationToken::new();
    let mut signals = signals::install_handlers().context("waiting for signals")?;
    let workers = start_workers(&components);
    let grace = components.settings.shutdown_timeout;
    let role = components.settings.role;
    let wake_workers = workers.as_ref().map_or_else(|| Arc::new(|| {}) as Arc<dyn Fn() + Send + Sync>, Workers::waker);
    let state = build_state(components, wake_workers, shutdown.clone())?;
    let router = match role {
        Role::All | Role::Api => http::router(state),
        Role::Worker => http::worker_router(state),
    };
    tracing::info!(%address, role = role.as_str(), version = env!("CARGO_PKG_VERSION"), "listening");
    let mut server = tokio::spawn(http::serve(listener, router, shutdown.clone(), grace));
    tokio::select! {
        served = &mut server => return served.context("serving")?,
        signal = signals.recv() => tracing::info!(signal, "stopping: a second signal ends at once"),
    }
    signals.exit_on_next();
    shutdown.cancel();
    let (served, ()) = tokio::join!(server, stop_workers(workers));
    served.context("serving")??;
    tracing::info!("stopped");
    Ok(())
}

fn start_workers(components: &Components) -> Option<Workers> {
    let context = || WorkerContext {
        base: Arc::clone(&components.base),
        store: Arc::clone(&components.store),
        data_folder: Arc::clone(&components.data_dir),
        settings: components.settings.worker.clone(),
    };
    match components.settings.role {
        Role::Api => None,
        Role::All | Role::Worker => Some(Workers::start(context())),
    }
}

fn build_state(
    components: Components,
    wake_workers: Arc<dyn Fn() + Send + Sync>,
    shutdown: CancellationToken,
) -> Result<AppState> {
    let Components { store, base, data_dir: folder, settings } = components;
    let adapters = folder.adapters_dir();
    let serving = InferenceService::start(Arc::clone(&base), Arc::clone(&store), adapters, settings.serving)?;
    let keys = ApiKeys::new(settings.api_keys.iter().map(Secret::expose))?;
    if keys.allows_all() && !settings.listen.ip().is_loopback() {
        tracing::warn!(address = %settings.listen, "no api key is set: whoever reaches this address is let in");
    }
    Ok(AppState {
        store,
        base,
        data_dir: folder,
        serving,
        notify_workers: wake_workers,
        concurrency: Arc::new(ConcurrencyLimits::new(&settings.http)),
        settings: Arc::new(settings.http),
        dataset_settings: Arc::new(settings.data),
        artifact_settings: settings.artifact,
        api_keys: Arc::new(keys),
        shutdown,
        metrics: Arc::new(Metrics::default()),
    })
}

async fn stop_workers(workers: Option<Workers>) {
    let Some(workers) = workers else { return };
    match tokio::time::timeout(WORKER_STOP_TIMEOUT, workers.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "jobs were not handed back: the next start takes them"),
        Err(_) => tracing::warn!("jobs did not stop in time: the next start takes them back"),
    }
}
