//! One forward pass over inputs of several adapters and of the base model.
//!
//! Sequences are grouped by adapter. Each adapter owns a contiguous range of sequences and changes only their rows,
//! while the matrix products of the base model run once over all rows.

use super::adapters::AdapterHandle;
use espalier_core::artifact::LoadedAdapter;
use espalier_core::error::Result;
use espalier_core::model::hooks::{self, PrefixKeyValues, SublayerContext};
use espalier_core::model::{BaseModel, Batch, FirstTrainableLayer, Hooks, RequiredRows, Site, Tokens};
use espalier_core::task::{RowSelection, l2_normalize};
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::{Backend, Recording, Tape, Var};
use std::ops::Range;
use std::sync::Arc;

/// The inputs of one adapter in a batch, at least one.
pub struct AdapterGroup {
    pub adapter: AdapterHandle,
    pub inputs: Vec<Tokens>,
}

/// Returns one row per input, group by group in input order: the logits of its task's head, or an L2-normalized
/// embedding.
pub fn forward(base: &BaseModel, groups: &[AdapterGroup]) -> Result<Vec<Vec<f32>>> {
    forward_with_backend(base, base.backend(), groups)
}

/// [`forward`] with a variant of the base's backend.
pub fn forward_with_backend(
    base: &BaseModel,
    backend: &Arc<dyn Backend>,
    groups: &[AdapterGroup],
) -> Result<Vec<Vec<f32>>> {
    let length_orders: Vec<Vec<usize>> = groups.iter().map(length_order).collect();
    let tokens = groups.iter().zip(&length_orders).flat_map(|(group, length_order)| {
        let virtual_tokens = group.adapter.virtual_tokens();
        length_order.iter().map(move |index| (&group.inputs[*index], virtual_tokens))
    });
    let adapters = MultiAdapterBatch::from_groups(groups.iter().map(|group| (&group.adapter, group.inputs.len())));
    let mut tape = Tape::new(Arc::clone(backend), Arc::from([]), Recording::Off);
    let hidden = base.encode(&mut tape, &Batch::with_virtual_tokens(tokens), &adapters, required_rows(base, groups))?;
    let mut outputs = Vec::new();
    for ((segment, group), length_order) in adapters.segments.iter().zip(groups).zip(&length_orders) {
        let rows = tape.slice_sequences(hidden, segment.sequences.clone())?;
        let rows =
            segment.head_outputs(base, &mut tape, rows, length_order.iter().map(|index| &group.inputs[*index]))?;
        let mut indexed_rows: Vec<(usize, Vec<f32>)> = length_order.iter().copied().zip(rows).collect();
        indexed_rows.sort_unstable_by_key(|(index, _)| *index);
        outputs.extend(indexed_rows.into_iter().map(|(_, row)| row));
    }
    Ok(outputs)
}

/// The rows that the heads of all groups read: all rows, unless they agree on the first or the last.
fn required_rows(base: &BaseModel, groups: &[AdapterGroup]) -> RequiredRows {
    let base_selection = RowSelection::Pooled(base.info().default_pooling);
    let row_selection = |group: &AdapterGroup| {
        group.adapter.loaded().map_or(base_selection, |adapter| adapter.output_head.row_selection)
    };
    let mut per_group = groups.iter().map(|group| row_selection(group).required_rows());
    let first = per_group.next().unwrap_or(RequiredRows::All);
    if per_group.all(|other| other == first) { first } else { RequiredRows::All }
}

/// Order of the inputs by length: neighbours of similar length are computed faster.
fn length_order(group: &AdapterGroup) -> Vec<usize> {
    let mut order: Vec<usize> = (0..group.inputs.len()).collect();
    order.sort_by_key(|index| group.inputs[*index].ids.len());
    order
}

/// All adapters of a batch as one [`Hooks`] value.
pub struct MultiAdapterBatch<'a> {
    segments: Vec<AdapterSegment<'a>>,
}

/// The sequences of one adapter; `None` is the base model.
struct AdapterSegment<'a> {
    adapter: Option<&'a LoadedAdapter>,
    sequences: Range<usize>,
}

impl<'a> MultiAdapterBatch<'a> {
    /// Takes the adapters in the order of their sequences, each with the number of its sequences.
    pub fn from_groups(groups: impl IntoIterator<Item = (&'a AdapterHandle, usize)>) -> Self {
        let mut end = 0;
        let segment = |(adapter, count): (&'a AdapterHandle, usize)| {
            let start = end;
            end += count;
            AdapterSegment { adapter: adapter.loaded(), sequences: start..end }
        };
        Self { segments: groups.into_iter().map(segment).collect() }
    }
}

impl MultiAdapterBatch<'_> {
    /// Logits of the language model's head, flattened: `(rows, hidden)` → `(rows, vocabulary)`. Adapters with a head of their own are
    /// computed apart.
    pub fn lm_logits(&self, base: &BaseModel, tape: &mut Tape, rows: Var) -> Result<Vec<f32>> {
        let own_head = |segment: &AdapterSegment| segment.adapter.is_some_and(|adapter| adapter.lm_head.is_some());
        if !self.segments.iter().any(own_head) {
            let logits = base.lm_logits(tape, rows)?;
            return Ok(tape.to_host(logits)?.values);
        }
        let mut values = Vec::new();
        for run in self.segments.chunk_by(|one, other| !own_head(one) && !own_head(other)) {
            let sequences = run[0].sequences.start..run[run.len() - 1].sequences.end;
            let layout = tape.layout(rows);
            if layout.rows_of_sequences(&sequences).is_empty() {
                continue;
            }
            let own_rows = tape.slice_sequences(rows, sequences)?;
            values.extend(match run[0].adapter.and_then(|adapter| Some((adapter, adapter.lm_head.as_ref()?))) {
                Some((adapter, lm_head)) => {
                    let previous_parameters = tape.swap_parameters(Arc::clone(&adapter.parameters));
                    let logits = lm_head.logits(base, tape, own_rows)?;
                    tape.swap_parameters(previous_parameters);
                    logits
                }
                None => {
                    let logits = base.lm_logits(tape, own_rows)?;
                    tape.to_host(logits)?.values
                }
            });
        }
        Ok(values)
    }
}

impl AdapterSegment<'_> {
    /// Computes the output rows of this segment from the hidden states of its sequences.
    fn head_outputs<'a>(
        &self,
        base: &BaseModel,
        tape: &mut Tape,
        hidden: Var,
        sequences: impl Iterator<Item = &'a Tokens>,
    ) -> Result<Vec<Vec<f32>>> {
        let Some(adapter) = self.adapter else {
            let pooled = base.pool(tape, hidden, base.info().default_pooling, &())?;
            let rows = tape.to_host(pooled)?.values;
            let mut rows: Vec<Vec<f32>> = rows.chunks_exact(base.info().hidden_size).map(<[f32]>::to_vec).collect();
            if base.info().normalized_embedding {
                rows.iter_mut().for_each(|row| l2_normalize(row));
            }
            return Ok(rows);
        };
        let previous_parameters = tape.swap_parameters(Arc::clone(&adapter.parameters));
        let outputs = adapter.output_head.serving_outputs(base, tape, hidden, adapter.hooks.as_ref(), sequences)?;
        tape.swap_parameters(previous_parameters);
        Ok(outputs)
    }
}

impl MultiAdapterBatch<'_> {
    fn any_adapter(&self, has_hook: impl Fn(&dyn Hooks) -> bool) -> bool {
        self.segments.iter().filter_map(|segment| segment.adapter).any(|adapter| has_hook(adapter.hooks.as_ref()))
    }

    /// Calls `apply` for every adapter that has the hook, with the adapter's parameters on the tape.
    fn for_each_adapter(
        &self,
        tape: &mut Tape,
        has_hook: impl Fn(&dyn Hooks) -> bool,
        mut apply: impl FnMut(&mut Tape, &dyn Hooks, Range<usize>) -> Result<()>,
    ) -> Result<()> {
        for segment in &self.segments {
            let Some(adapter) = segment.adapter.filter(|adapter| has_hook(adapter.hooks.as_ref())) else { continue };
            let previous_parameters = tape.swap_parameters(Arc::clone(&adapter.parameters));
            apply(tape, adapter.hooks.as_ref(), segment.sequences.clone())?;
            tape.swap_parameters(previous_parameters);
        }
        Ok(())
    }

    /// Lets every adapter that has the hook change its own rows of `output`.
    fn apply_in_place(
        &self,
        tape: &mut Tape,
        output: Var,
        has_hook: impl Fn(&dyn Hooks) -> bool,
        mut apply: impl FnMut(&mut Tape, &dyn Hooks, &Range<usize>, Var) -> Result<Var>,
    ) -> Result<Var> {
        self.for_each_adapter(tape, has_hook, |tape, hooks, sequences| {
            let own_rows = tape.view_sequences(output, sequences.clone());
            let returned = apply(tape, hooks, &sequences, own_rows)?;
            assert_eq!(returned, own_rows, "a hook changes its rows in place");
            Ok(())
        })?;
        tape.flush_lora()?;
        Ok(output)
    }
}

impl Hooks for MultiAdapterBatch<'_> {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        let first_trainable = self
            .segments
            .iter()
            .filter_map(|segment| segment.adapter)
            .map(|adapter| adapter.hooks.first_trainable_layer());
        first_trainable.min().unwrap_or(FirstTrainableLayer::Head)
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.any_adapter(|hooks| hooks.has_output_hook(site))
    }

    fn has_input_hook(&self, site: Site) -> bool {
        self.any_adapter(|hooks| hooks.has_input_hook(site))
    }

    fn has_sublayer_hook(&self, layer: usize, part: hooks::Sublayer) -> bool {
        self.any_adapter(|hooks| hooks.has_sublayer_hook(layer, part))
    }

    fn has_word_embedding_hook(&self) -> bool {
        self.any_adapter(|hooks| hooks.has_word_embedding_hook())
    }

    fn on_word_embeddings(&self, tape: &mut Tape, ids: &[u32], base_rows: Var, output: Var) -> Result<Var> {
        let layout = tape.layout(output);
        let has_hook = |hooks: &dyn Hooks| hooks.has_word_embedding_hook();
        self.apply_in_place(tape, output, has_hook, |tape, hooks, sequences, own_rows| {
            let base_rows = tape.slice_sequences(base_rows, sequences.clone())?;
            hooks.on_word_embeddings(tape, &ids[layout.rows_of_sequences(sequences)], base_rows, own_rows)
        })
    }

    fn on_linear_input(&self, tape: &mut Tape, site: Site, input: Var) -> Result<Var> {
        let has_hook = |hooks: &dyn Hooks| hooks.has_input_hook(site);
        self.apply_in_place(tape, input, has_hook, |tape, hooks, _, own_rows| {
            hooks.on_linear_input(tape, site, own_rows)
        })
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, input: Var, output: Var) -> Result<Var> {
        let has_hook = |hooks: &dyn Hooks| hooks.has_output_hook(site);
        self.apply_in_place(tape, output, has_hook, |tape, hooks, sequences, own_rows| {
            let input = tape.slice_sequences(input, sequences.clone())?;
            hooks.on_linear_output(tape, site, input, own_rows)
        })
    }

    fn on_norm_output(&self, tape: &mut Tape, site: Site, normalised: Var, output: Var) -> Result<Var> {
        let has_hook = |hooks: &dyn Hooks| hooks.has_output_hook(site);
        self.apply_in_place(tape, output, has_hook, |tape, hooks, sequences, own_rows| {
            let normalised = tape.slice_sequences(normalised, sequences.clone())?;
            hooks.on_norm_output(tape, site, normalised, own_rows)
        })
    }

    fn on_sublayer_output(&self, tape: &mut Tape, at: &SublayerContext, output: Var) -> Result<Var> {
        let has_hook = |hooks: &dyn Hooks| hooks.has_sublayer_hook(at.layer, at.sublayer);
        self.apply_in_place(tape, output, has_hook, |tape, hooks, sequences, own_rows| {
            let residual = tape.slice_sequences(at.residual, sequences.clone())?;
            hooks.on_sublayer_output(tape, &SublayerContext { residual, ..*at }, own_rows)
        })
    }

    fn soft_prompts(&self, tape: &mut Tape, _sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        let mut prompts = Vec::new();
        self.for_each_adapter(
            tape,
            |_| true,
            |tape, hooks, sequences| {
                prompts.extend(hooks.soft_prompts(tape, sequences)?);
                Ok(())
            },
        )?;
        Ok(prompts)
    }

    fn prefix_key_values(
        &self,
        tape: &mut Tape,
        layer: usize,
        _sequences: Range<usize>,
    ) -> Result<Vec<PrefixKeyValues>> {
        let mut prefixes = Vec::new();
        self.for_each_adapter(
            tape,
            |_| true,
            |tape, hooks, sequences| {
                prefixes.extend(hooks.prefix_key_values(tape, layer, sequences)?);
                Ok(())
            },
        )?;
        Ok(prefixes)
    }
}
