//! Folders written by PEFT, with a changed configuration or changed tensors.

use crate::invalid_adapters::fixtures::Source::{Distilbert, Peft, Roberta};
use crate::invalid_adapters::fixtures::{Case, Source, add, case, config, remove, shorten, tensors};
use espalier_tensor::Tensor;
use serde_json::{Value, json};

const LORA: Source = Peft("lora-patterns");
const UNREADABLE: &str = "unreadable_adapter";
const UNSUPPORTED: &str = "unsupported_adapter";
const TENSORS: &str = "adapter_tensors";
const OTHER: &str = "other_base";

#[rustfmt::skip]
pub fn configs() -> Vec<Case> {
    vec![
        case("a rank of zero", LORA, |f| config(f, "r", json!(0)), UNREADABLE, "r must be a positive integer"),
        case("another rank", LORA, |f| config(f, "r", json!(3)), TENSORS, "value.lora_A.weight has the shape [4, 32], expected [3, 32]"),
        case("an alpha that is a string", LORA, |f| config(f, "lora_alpha", json!("8")), UNREADABLE, "lora_alpha must be a number"),
        case("a dropout of one", LORA, |f| config(f, "lora_dropout", json!(1)), UNREADABLE, "lora_dropout"),
        case("a boolean that is a number", LORA, |f| config(f, "use_rslora", json!(1)), UNREADABLE, "use_rslora must be true or false"),
        case("an empty rank pattern", LORA, |f| config(f, "rank_pattern", json!({})), TENSORS, "layer.1.attention.self.query.lora_A.weight has the shape [2, 32], expected [4, 32]"),
        case("two rank patterns for one module", LORA, |f| config(f, "rank_pattern", json!({"query": 2, "self.query": 3})), UNSUPPORTED, "several entries of rank_pattern mean"),
        case("a pattern that is not an object", LORA, |f| config(f, "alpha_pattern", json!([8])), UNREADABLE, "alpha_pattern must be an object"),
        case("no target modules", LORA, |f| config(f, "target_modules", Value::Null), UNREADABLE, "target_modules names nothing"),
        case("target modules that this base does not have", LORA, |f| config(f, "target_modules", json!(["c_attn"])), UNSUPPORTED, "target_modules means no module of this base"),
        case("an additional target module", LORA, |f| config(f, "target_modules", json!(["query", "key", "value", "intermediate.dense"])), TENSORS, "attention.self.key.lora_A.weight is missing"),
        case("a regular expression that is not supported", LORA, |f| config(f, "target_modules", json!("(?!key).*query")), UNSUPPORTED, "the regular expression in target_modules"),
        case("excluded modules that have tensors", LORA, |f| config(f, "exclude_modules", json!(["value"])), TENSORS, "attention.self.value.lora_A.weight belongs to a module"),
        case("layers without the adapter that have tensors", LORA, |f| config(f, "layers_to_transform", json!([1])), TENSORS, "layer.0.attention.self.query.lora_A.weight belongs to a module that target_modules does not name"),
        case("an unknown method", LORA, |f| config(f, "peft_type", json!("LOHA")), UNSUPPORTED, "peft_type is \"LOHA\""),
        case("no method", LORA, |f| config(f, "peft_type", Value::Null), UNSUPPORTED, "r is set and not known here"),
        case("the fields of another method", Peft("ia3"), |f| config(f, "peft_type", json!("LN_TUNING")), UNSUPPORTED, "feedforward_modules is set and not known here"),
        case("an unknown key", LORA, |f| config(f, "x_scale", json!(2)), UNSUPPORTED, "x_scale is set and not known here"),
        case("training of all biases", LORA, |f| config(f, "bias", json!("all")), UNSUPPORTED, "bias is \"all\""),
        case("transposed weights", LORA, |f| config(f, "fan_in_fan_out", json!(true)), UNSUPPORTED, "fan_in_fan_out is set"),
        case("another module in modules_to_save", LORA, |f| config(f, "modules_to_save", json!(["classifier", "pooler"])), UNSUPPORTED, "modules_to_save holds \"pooler\""),
        case("an initialisation that changes the base", LORA, |f| config(f, "init_lora_weights", json!("olora")), UNSUPPORTED, "init_lora_weights is \"olora\""),
        case("a causal language model on an encoder", LORA, |f| config(f, "task_type", json!("CAUSAL_LM")), UNSUPPORTED, "its task_type is CAUSAL_LM"),
        case("labels with a gap", LORA, |f| config(f, "id2label", json!({"0": "a", "2": "b", "3": "c"})), UNREADABLE, "id2label"),
        case("one label too few", LORA, |f| config(f, "labels", json!(["a", "b"])), UNREADABLE, "there are 2 labels, but the head has 3 rows"),
        case("another base", LORA, |f| config(f, "base_model_name_or_path", json!("roberta-base")), OTHER, "adapter_config.json names \"roberta-base\" as its base"),
        case("a base's name that is a number", LORA, |f| config(f, "base_model_name_or_path", json!(7)), UNREADABLE, "base_model_name_or_path must be a text"),
        case("a prompt for a base with a larger hidden size", Peft("prompt-tuning"), |f| config(f, "token_dim", json!(768)), OTHER, "token_dim is 768, this base has 32"),
        case("a prefix for a base with more layers", Peft("prefix-tuning"), |f| config(f, "num_layers", json!(12)), OTHER, "num_layers is 12, this base has 2"),
        case("a prompt for a base with more heads", Peft("p-tuning"), |f| config(f, "num_attention_heads", json!(12)), OTHER, "num_attention_heads is 12"),
        case("a number of layers that is a string", Peft("p-tuning"), |f| config(f, "num_layers", json!("2")), UNREADABLE, "num_layers must be a positive integer"),
        case("a prompt for encoder and decoder", Peft("prompt-tuning"), |f| config(f, "num_transformer_submodules", json!(2)), UNSUPPORTED, "num_transformer_submodules is 2"),
        case("no virtual tokens", Peft("prompt-tuning"), |f| config(f, "num_virtual_tokens", json!(0)), UNREADABLE, "num_virtual_tokens must be a positive integer"),
        case("more virtual tokens than the context window", Peft("prompt-tuning"), |f| config(f, "num_virtual_tokens", json!(500)), OTHER, "num_virtual_tokens is 500, this base has room for 124"),
        case("virtual tokens that leave no space for a text", Peft("prompt-tuning"), |f| config(f, "num_virtual_tokens", json!(126)), OTHER, "num_virtual_tokens is 126, this base has room for 124"),
        case("fewer virtual tokens than rows", Peft("prompt-tuning"), |f| config(f, "num_virtual_tokens", json!(4)), TENSORS, "prompt_embeddings has the shape [5, 32], expected [4, 32]"),
        case("projection matrices that were not saved", Peft("vera"), |f| config(f, "save_projection", json!(false)), UNSUPPORTED, "save_projection is false"),
        case("no feed-forward modules", Peft("ia3"), |f| config(f, "feedforward_modules", json!([])), TENSORS, "output.dense.ia3_l has the shape [1, 64], expected [32, 1]"),
    ]
}

#[rustfmt::skip]
pub fn tensor_cases() -> Vec<Case> {
    vec![
        case("a LoRA without an A", LORA, |f| remove(f, "layer.0.attention.self.query.lora_A"), TENSORS, "layer.0.attention.self.query.lora_A.weight is missing"),
        case("a LoRA whose B has a missing row", LORA, |f| shorten(f, "layer.1.attention.self.value.lora_B"), TENSORS, "layer.1.attention.self.value.lora_B.weight has the shape [31, 4], expected [32, 4]"),
        case("a DoRA without a magnitude", LORA, |f| remove(f, "layer.0.attention.self.value.lora_magnitude"), TENSORS, "layer.0.attention.self.value.lora_magnitude_vector is missing"),
        case("magnitudes without DoRA", LORA, |f| config(f, "use_dora", json!(false)), TENSORS, "lora_magnitude_vector is not a tensor of the method lora"),
        case("a bias that is too short", LORA, |f| shorten(f, "layer.0.attention.self.query.base_layer.bias"), TENSORS, "layer.0.attention.self.query.base_layer.bias has the shape [31], expected [32]"),
        case("biases that the config does not have", LORA, |f| config(f, "bias", json!("none")), TENSORS, "base_layer.bias is not a tensor of the method lora"),
        case("a LoRA of an embedding", LORA, |f| add(f, "layer.0.attention.self.query.lora_A", |_| "base_model.model.bert.embeddings.word_embeddings.lora_embedding_A".to_string()), TENSORS, "word_embeddings.lora_embedding_A is not a tensor"),
        case("a layer that this base does not have", LORA, |f| add(f, "layer.0.attention.self.query.lora_A", |name| name.replace("layer.0", "layer.9")), TENSORS, "layer.9.attention.self.query.lora_A.weight belongs to a module that this base does not have"),
        case("an IA3 without a vector", Peft("ia3"), |f| remove(f, "layer.1.attention.self.key.ia3_l"), TENSORS, "layer.1.attention.self.key.ia3_l is missing"),
        case("an IA3 vector with transposed shape", Peft("ia3"), |f| tensors(f, "layer.0.attention.self.value.ia3_l", |name, tensor| vec![(name.to_string(), Tensor::new([1, 32], tensor.values))]), TENSORS, "layer.0.attention.self.value.ia3_l has the shape [1, 32], expected [32, 1]"),
        case("a norm without its bias", Peft("layer-norm"), |f| remove(f, "embeddings.LayerNorm.ln_tuning_layers.bias"), TENSORS, "embeddings.LayerNorm.ln_tuning_layers.bias is missing"),
        case("a norm whose weight is too short", Peft("layer-norm"), |f| shorten(f, "layer.0.output.LayerNorm.ln_tuning_layers.weight"), TENSORS, "layer.0.output.LayerNorm.ln_tuning_layers.weight has the shape [31]"),
        case("a VeRA without its A", Peft("vera"), |f| remove(f, "base_model.vera_A"), TENSORS, "base_model.vera_A is missing"),
        case("a VeRA whose B has a missing row", Peft("vera"), |f| shorten(f, "base_model.vera_B"), TENSORS, "base_model.vera_B has the shape [63, 8], expected [64, 8]"),
        case("a VeRA without a lambda", Peft("vera"), |f| remove(f, "layer.1.intermediate.dense.vera_lambda_d"), TENSORS, "layer.1.intermediate.dense.vera_lambda_d is missing"),
        case("no prompt", Peft("prompt-tuning"), |f| remove(f, "prompt_embeddings"), TENSORS, "prompt_embeddings is missing"),
        case("a prompt with transposed shape", Peft("prompt-tuning"), |f| tensors(f, "prompt_embeddings", |name, tensor| vec![(name.to_string(), Tensor::new([32, 5], tensor.values))]), TENSORS, "prompt_embeddings has the shape [32, 5], expected [5, 32]"),
        case("an encoder in addition to the prompt", Peft("p-tuning"), |f| add(f, "prompt_embeddings", |_| "prompt_encoder.default.embedding.weight".to_string()), TENSORS, "prompt_encoder.default.embedding.weight is not a tensor of the method p_tuning"),
        case("a prefix without its last layer", Peft("prefix-tuning"), |f| tensors(f, "prompt_embeddings", |name, tensor| vec![(name.to_string(), Tensor::new([6, 64], tensor.values[..384].to_vec()))]), TENSORS, "prompt_embeddings has the shape [6, 64], expected [6, 128]"),
        case("a prompt without a head", Peft("prompt-tuning"), |f| remove(f, "classifier.weight"), TENSORS, "base_model.classifier.weight is missing"),
        case("a head under both prefixes", LORA, |f| add(f, "classifier.bias", |_| "base_model.classifier.bias".to_string()), TENSORS, "base_model.model.classifier.bias is there twice"),
        case("a head whose bias is too short", LORA, |f| shorten(f, "classifier.bias"), TENSORS, "classifier.bias has the shape [2], expected [3]"),
        case("a head for another hidden size", LORA, |f| tensors(f, "classifier.weight", |name, tensor| vec![(name.to_string(), Tensor::new([3, 16], tensor.values[..48].to_vec()))]), TENSORS, "classifier.weight has the shape [3, 16], expected [3, 32]"),
        case("a head under the name of another model", LORA, |f| tensors(f, "classifier.", |name, tensor| vec![(name.replace("classifier", "score"), tensor)]), TENSORS, "base_model.model.score.bias is not a tensor"),
        case("RoBERTa's head without its dense layer", Roberta, |f| remove(f, "classifier.dense.weight"), TENSORS, "base_model.model.classifier.dense.weight is missing"),
        case("RoBERTa's dense layer with a missing row", Roberta, |f| shorten(f, "classifier.dense.weight"), TENSORS, "classifier.dense.weight has the shape [31, 32], expected [32, 32]"),
        case("RoBERTa's adapter with BERT's head", Roberta, |f| tensors(f, "classifier.out_proj", |name, tensor| vec![(name.replace(".out_proj", ""), tensor)]), TENSORS, "classifier.out_proj.weight is missing"),
        case("DistilBERT's head without its first layer", Distilbert, |f| remove(f, "pre_classifier.bias"), TENSORS, "base_model.model.pre_classifier.bias is missing"),
        case("BERT's modules on DistilBERT", Distilbert, |f| tensors(f, "q_lin.lora_A", |name, tensor| vec![(name.replace("attention.q_lin", "attention.self.query"), tensor)]), TENSORS, "attention.self.query.lora_A.weight belongs to a module that this base does not have"),
        case("an adapter without effect", Peft("vera"), |f| tensors(f, "vera_lambda_b", |name, tensor| vec![(name.to_string(), Tensor::zeros(tensor.shape.clone()))]), "adapter_without_effect", "changes nothing"),
    ]
}
