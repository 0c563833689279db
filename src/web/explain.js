// One line about each task, method and setting, as the forms show them.

export const TASKS = {
  sequence_classification: "One label, or a set of labels, for each text",
  regression: "A number for each text",
  token_classification: "A tag for each word: names, dates, entities",
  embedding: "A vector for each text; similar texts get similar vectors",
  masked_language_model: "Adapts the base to the language of raw texts (encoders)",
  causal_language_model: "Generates text: completions or answers in a conversation (decoders)",
  preference: "Prefers the chosen answer over the rejected one (DPO, IPO)",
};

export const METHODS = {
  lora: "LoRA: low-rank updates of weight matrices; the usual choice",
  ia3: "IA3: scales activations; very few parameters",
  prompt_tuning: "Prompt tuning: learned virtual tokens before the input",
  p_tuning: "P-tuning: virtual tokens from a small encoder",
  prefix_tuning: "Prefix tuning: learned keys and values in every layer",
  bottleneck: "Bottleneck adapters: small layers between the base's layers",
  bias: "BitFit: trains only the biases",
  layer_norm: "Trains only the layer norms",
  vera: "VeRA: scales shared random low-rank matrices",
  head: "Trains only a head on frozen features; takes seconds",
  auto: "Compare several: successive halving drops the worse half at each rung",
};

export const SETTINGS = {
  epochs: "Passes over the training examples",
  batch_size: "Examples per optimizer step",
  learning_rate: "Step size of the optimizer",
  max_length: "Tokens of a text that are read; longer texts are cut at the end",
  seed: "Same data, settings and seed give the same adapter, byte for byte",
  weight_decay: "Weight decay of the optimizer",
  warmup_ratio: "Share of the steps in which the learning rate rises",
  schedule: "Learning rate after the warm-up: constant, linear or cosine",
  published_epoch: "Epoch whose weights become the adapter: the best one on the validation examples, or the last",
  precision: "Precision of the frozen model's products in forward passes: f32, or int8, which is faster and less exact",
  max_grad_norm: "Maximum gradient norm (clipping)",
  gradient_accumulation: "Batches whose gradients are summed before a step",
  max_steps: "Ends the run after this many steps",
  rank: "Rank of the low-rank update: a higher rank has more capacity and takes more memory",
  alpha: "Scale of the update; twice the rank by default",
  dropout: "Dropout probability",
  target_modules: "Modules of the base that the method adapts",
  layers: "Layers to adapt: \"all\", {\"top\": 2} or {\"from\": 2, \"to\": 4}",
  num_virtual_tokens: "Number of virtual tokens",
  rslora: "Scales by alpha/√rank instead of alpha/rank",
  dora: "DoRA: trains magnitude and direction separately",
  learning_rate_ratio: "Learning rate of B as a multiple of A's (LoRA+)",
  pooling: "How token vectors are pooled into one: mean, cls, first or last",
  multi_label: "A set of labels per text instead of exactly one",
  class_weights: "\"balanced\" gives rare labels more weight",
  mask_probability: "Share of the tokens that are predicted",
  beta: "A larger value keeps the adapter closer to the base",
  loss: "Loss function",
  bias: "Biases of the base to train as well: none or lora_only",
  reduction_factor: "Hidden size of the base divided by the width of the bottleneck",
};

/** Columns that a task's rows may have, by the field that the API names. */
export const TASK_FIELDS = {
  sequence_classification: ["text", "text_pair", "label", "labels"],
  regression: ["text", "text_pair", "value"],
  token_classification: ["tokens", "tags", "text", "entities"],
  embedding: ["text", "positive", "negative", "text_pair", "score"],
  masked_language_model: ["text"],
  causal_language_model: ["prompt", "completion", "messages", "text"],
  preference: ["prompt", "chosen", "rejected"],
};

/** Fields offered while the task is chosen by the server. */
export const COMMON_FIELDS = ["text", "label", "labels", "value", "text_pair", "prompt", "completion"];
