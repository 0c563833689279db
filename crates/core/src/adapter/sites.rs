//! Facts about the base model that follow from its list of sites.

use crate::model::{BaseModelInfo, Module, Site, SiteInfo};

/// Number of layers.
pub fn num_layers(sites: &[SiteInfo]) -> usize {
    sites.iter().filter_map(|info| info.site.layer).max().map_or(0, |last| last + 1)
}

/// Width of the hidden states.
pub fn hidden_size(sites: &[SiteInfo]) -> usize {
    sites.iter().find(|info| info.site.module == Module::AttentionOutput).map_or(0, |info| info.out_features)
}

/// The linear maps.
pub fn linear_sites(sites: &[SiteInfo]) -> Vec<SiteInfo> {
    sites.iter().filter(|info| info.site.module.is_linear()).cloned().collect()
}

/// The modules of the base in the order of [`Module::ALL`].
pub fn present_modules(sites: &[SiteInfo]) -> impl Iterator<Item = Module> {
    Module::ALL.into_iter().filter(|module| sites.iter().any(|info| info.site.module == *module))
}

/// Output width of the query, key or value projection at `site`, which may be a third of a fused projection.
pub fn projection_width(sites: &[SiteInfo], site: Site) -> usize {
    let fused_site = Site { module: Module::QueryKeyValue, ..site };
    let width_at = |info: &SiteInfo| match info.site {
        found if found == site => Some(info.out_features),
        found if found == fused_site => Some(info.out_features / 3),
        _ => None,
    };
    sites.iter().find_map(width_at).unwrap_or(0)
}

/// Width of the keys; less than the hidden size where several query heads share a key head.
pub fn key_width(sites: &[SiteInfo]) -> usize {
    projection_width(sites, Site { layer: Some(0), module: Module::Key })
}

/// Number of key and value heads.
pub fn num_kv_heads(info: &BaseModelInfo, sites: &[SiteInfo]) -> usize {
    let query_width = projection_width(sites, Site { layer: Some(0), module: Module::Query });
    info.attention_heads * key_width(sites) / query_width.max(1)
}
