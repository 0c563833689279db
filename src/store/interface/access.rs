//! [`AccessStore`]: keys, owners, shared adapters, the audit log and usage.

use crate::store::model::{
    AccessSnapshot, Adapter, ApiKey, AuditEntry, AuditFilter, NewApiKey, NewAuditEntry, Owner, OwnerLimits,
    OwnerStorage, PageRequest, UsageIncrement, UsageRow,
};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use espalier_core::error::Result;
use uuid::Uuid;

#[async_trait]
pub trait AccessStore: Send + Sync {
    // keys

    async fn add_api_key(&self, key: NewApiKey) -> Result<ApiKey>;
    /// Lists keys of all owners, revoked ones too, newest first.
    async fn api_keys(&self, page: PageRequest) -> Result<Vec<ApiKey>>;
    async fn api_key(&self, id: Uuid) -> Result<ApiKey>;
    /// Revokes a key. A revoked key stays as it is.
    async fn revoke_api_key(&self, id: Uuid) -> Result<ApiKey>;
    /// Adds a key in place of another one, which ends at `old_expires_at` unless it ends before.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` (`key_revoked`) if the old key is revoked or has expired.
    async fn rotate_api_key(&self, id: Uuid, new: NewApiKey, old_expires_at: DateTime<Utc>) -> Result<ApiKey>;
    /// Records when keys were used last.
    async fn record_key_use(&self, uses: &[(Uuid, DateTime<Utc>)]) -> Result<()>;
    /// Number that increases with every change of a key or an owner.
    async fn access_version(&self) -> Result<i64>;
    async fn access_snapshot(&self) -> Result<AccessSnapshot>;

    // owners

    /// Owners that have a row of any kind, and what they store, sorted by name.
    async fn owners(&self) -> Result<Vec<(Owner, OwnerStorage)>>;
    /// `None` for an owner without a row of any kind.
    async fn owner(&self, name: &str) -> Result<Option<Owner>>;
    async fn set_owner_limits(&self, owner: &str, limits: OwnerLimits) -> Result<Owner>;
    async fn owner_storage(&self, owner: &str) -> Result<OwnerStorage>;

    // shared adapters

    /// Owners that an adapter is shared with; `*` stands for all.
    async fn adapter_shares(&self, owner: &str, adapter: Uuid) -> Result<Vec<String>>;
    /// Replaces the owners that an adapter is shared with.
    async fn share_adapter(&self, owner: &str, adapter: Uuid, grantees: &[String]) -> Result<()>;
    /// Lists the adapters of other owners that are shared with this one, newest first.
    async fn shared_adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>>;

    // audit log

    async fn add_audit_entry(&self, entry: NewAuditEntry) -> Result<()>;
    /// Lists entries, newest first.
    async fn audit_entries(&self, filter: &AuditFilter, page: PageRequest) -> Result<Vec<AuditEntry>>;

    // usage

    /// Adds to the usage of today.
    async fn add_usage(&self, increments: &[UsageIncrement]) -> Result<()>;
    /// Usage from `since` to `until`, both included, by day, owner and adapter; of all owners if `owner` is `None`.
    async fn usage(&self, owner: Option<&str>, since: NaiveDate, until: NaiveDate) -> Result<Vec<UsageRow>>;
}
