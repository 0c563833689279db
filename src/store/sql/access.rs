//! SQL implementation of [`AccessStore`].

use super::connection::SqlStore;
use super::dialect::Dialect;
use super::{access_version, adapter_shares, api_keys, audit, owners, usage};
use crate::store::interface::AccessStore;
use crate::store::model::{
    AccessSnapshot, Adapter, ApiKey, AuditEntry, AuditFilter, NewApiKey, NewAuditEntry, Owner, OwnerLimits,
    OwnerStorage, PageRequest, UsageIncrement, UsageRow,
};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use espalier_core::error::Result;
use uuid::Uuid;

#[async_trait]
impl<D: Dialect> AccessStore for SqlStore<D> {
    async fn add_api_key(&self, key: NewApiKey) -> Result<ApiKey> {
        api_keys::add(self, &key).await
    }

    async fn api_keys(&self, page: PageRequest) -> Result<Vec<ApiKey>> {
        api_keys::list(self, page).await
    }

    async fn api_key(&self, id: Uuid) -> Result<ApiKey> {
        api_keys::read(self, id).await
    }

    async fn revoke_api_key(&self, id: Uuid) -> Result<ApiKey> {
        api_keys::revoke(self, id).await
    }

    async fn rotate_api_key(&self, id: Uuid, new: NewApiKey, old_expires_at: DateTime<Utc>) -> Result<ApiKey> {
        api_keys::rotate(self, id, &new, old_expires_at).await
    }

    async fn record_key_use(&self, uses: &[(Uuid, DateTime<Utc>)]) -> Result<()> {
        api_keys::record_use(self, uses).await
    }

    async fn access_version(&self) -> Result<i64> {
        access_version::read(self).await
    }

    async fn access_snapshot(&self) -> Result<AccessSnapshot> {
        api_keys::snapshot(self).await
    }

    async fn owners(&self) -> Result<Vec<(Owner, OwnerStorage)>> {
        owners::list(self).await
    }

    async fn owner(&self, name: &str) -> Result<Option<Owner>> {
        owners::find(self, name).await
    }

    async fn set_owner_limits(&self, owner: &str, limits: OwnerLimits) -> Result<Owner> {
        owners::set_limits(self, owner, limits).await
    }

    async fn owner_storage(&self, owner: &str) -> Result<OwnerStorage> {
        owners::storage(self, owner).await
    }

    async fn adapter_shares(&self, owner: &str, adapter: Uuid) -> Result<Vec<String>> {
        adapter_shares::list_grantees(self, owner, adapter).await
    }

    async fn share_adapter(&self, owner: &str, adapter: Uuid, grantees: &[String]) -> Result<()> {
        adapter_shares::replace(self, owner, adapter, grantees).await
    }

    async fn shared_adapters(&self, owner: &str, page: PageRequest) -> Result<Vec<Adapter>> {
        adapter_shares::list(self, owner, page).await
    }

    async fn add_audit_entry(&self, entry: NewAuditEntry) -> Result<()> {
        audit::add(self, &entry).await
    }

    async fn audit_entries(&self, filter: &AuditFilter, page: PageRequest) -> Result<Vec<AuditEntry>> {
        audit::list(self, filter, page).await
    }

    async fn add_usage(&self, increments: &[UsageIncrement]) -> Result<()> {
        usage::add(self, increments).await
    }

    async fn usage(&self, owner: Option<&str>, since: NaiveDate, until: NaiveDate) -> Result<Vec<UsageRow>> {
        usage::list(self, owner, since, until).await
    }
}
