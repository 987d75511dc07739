/* Chat templates by name, for files without one: formats that many models share, with the names
 * that llama.cpp uses. */

const SYSTEM_FIRST = `{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content | trim %}
{%- set turns = messages[1:] %}
{%- else %}
{%- set system = '' %}
{%- set turns = messages %}
{%- endif %}`;

/**
 * Makes a template that puts each message between a mark with its role and an end mark.
 * @param {(role: string) => string} begin
 * @param {string} end
 * @param {string} answer
 */
const turns = (begin, end, answer) =>
  `{%- for message in messages %}{{ ${begin('message.role')} ~ (message.content | trim) ~ ${end} }}{%- endfor %}{%- if add_generation_prompt %}{{ ${answer} }}{%- endif %}`;

/**
 * The [INST] format of Llama 2, with the system text in the first user turn.
 * @param {string} open
 * @param {string} close
 */
const instructions = (open, close) => `${SYSTEM_FIRST}
{{- bos_token }}
{%- for message in turns %}
{%- if message.role == 'user' %}
{%- set said = system ~ '\\n\\n' ~ message.content if loop.first and system else message.content %}
{{- '${open}' ~ said ~ '${close}' }}
{%- else %}
{{- message.content | trim ~ eos_token }}
{%- endif %}
{%- endfor %}`;

/** @type {Record<string, string>} */
const TEMPLATES = {
  chatml: `{%- for message in messages %}{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}`,
  llama2: `${SYSTEM_FIRST}
{%- for message in turns %}
{%- if message.role == 'user' %}
{%- set said = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ message.content if loop.first and system else message.content %}
{{- bos_token ~ '[INST] ' ~ said ~ ' [/INST]' }}
{%- else %}
{{- ' ' ~ (message.content | trim) ~ ' ' ~ eos_token }}
{%- endif %}
{%- endfor %}`,
  llama3: `{{- bos_token }}${turns(
    (role) => `'<|start_header_id|>' ~ ${role} ~ '<|end_header_id|>\\n\\n'`,
    "'<|eot_id|>'",
    "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'",
  )}`,
  'mistral-v1': instructions(' [INST] ', ' [/INST]'),
  'mistral-v3': instructions('[INST] ', '[/INST]'),
  'mistral-v3-tekken': instructions('[INST]', '[/INST]'),
  'mistral-v7': `{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- '[SYSTEM_PROMPT] ' ~ message.content ~ '[/SYSTEM_PROMPT]' }}
{%- elif message.role == 'user' %}
{{- '[INST] ' ~ message.content ~ '[/INST]' }}
{%- else %}
{{- ' ' ~ message.content ~ eos_token }}
{%- endif %}
{%- endfor %}`,
  gemma: `${SYSTEM_FIRST}
{{- bos_token }}
{%- for message in turns %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{%- set said = message.content | trim %}
{{- '<start_of_turn>' ~ role ~ '\\n' ~ (system ~ '\\n\\n' ~ said if loop.first and system else said) ~ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}`,
  phi3: turns((role) => `'<|' ~ ${role} ~ '|>\\n'`, "'<|end|>\\n'", "'<|assistant|>\\n'"),
  phi4: turns(
    (role) => `'<|im_start|>' ~ ${role} ~ '<|im_sep|>'`,
    "'<|im_end|>'",
    "'<|im_start|>assistant<|im_sep|>'",
  ),
  zephyr: turns((role) => `'<|' ~ ${role} ~ '|>\\n'`, "eos_token ~ '\\n'", "'<|assistant|>\\n'"),
  falcon3: turns((role) => `'<|' ~ ${role} ~ '|>\\n'`, "'\\n'", "'<|assistant|>\\n'"),
  granite: turns(
    (role) => `'<|start_of_role|>' ~ ${role} ~ '<|end_of_role|>'`,
    "'<|end_of_text|>\\n'",
    "'<|start_of_role|>assistant<|end_of_role|>'",
  ),
  vicuna: `${SYSTEM_FIRST}
{{- system ~ '\\n\\n' if system }}
{%- for message in turns %}
{{- 'USER: ' ~ message.content ~ '\\n' if message.role == 'user' else 'ASSISTANT: ' ~ message.content ~ eos_token ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{%- endif %}`,
};

/** Names of the templates, sorted. */
export const TEMPLATE_NAMES = Object.freeze(Object.keys(TEMPLATES).sort());

/**
 * The template with a name; undefined if there is none.
 * @param {string} name
 * @returns {string | undefined}
 */
export const namedTemplate = (name) => (Object.hasOwn(TEMPLATES, name) ? TEMPLATES[name] : undefined);
