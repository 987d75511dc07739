/* Objects of OpenAI's API, as far as the library reads and writes them. */

/**
 * A message of a conversation. Roles are 'system', 'developer', 'user', 'assistant' and 'tool'.
 * @typedef {object} ChatMessage
 * @property {string} role  Who speaks.
 * @property {string | readonly ChatPart[] | null} [content]  The text, or texts in parts; null or
 *   missing only beside tool_calls.
 * @property {readonly ChatCall[]} [tool_calls]  Calls that a message of the assistant asks for.
 * @property {string} [tool_call_id]  Identifier of the call that a tool's message answers.
 * @property {string} [name]  Name of the speaker.
 * @property {string | null} [reasoning]  Thoughts of the assistant, as its answers have them.
 */

/**
 * A part of a message. Only texts are supported.
 * @typedef {object} ChatPart
 * @property {string} type  'text', or 'refusal' in a message of the assistant.
 * @property {string} [text]  The text.
 * @property {string} [refusal]  The text of a refusal.
 */

/**
 * A call of a function.
 * @typedef {object} ChatCall
 * @property {string} [id]  Identifier of the call.
 * @property {string} type  'function'.
 * @property {CalledFunction} [function]  The function, and its arguments.
 */

/**
 * A function that is called, with its arguments.
 * @typedef {object} CalledFunction
 * @property {string} name  Name of the function.
 * @property {string} arguments  Arguments as JSON.
 */

/**
 * A function that the model may call.
 * @typedef {object} ChatTool
 * @property {string} type  'function'.
 * @property {ChatFunction} [function]  The function.
 */

/**
 * A function, as the model is told of it.
 * @typedef {object} ChatFunction
 * @property {string} name  Name of the function.
 * @property {string} [description]  What it does.
 * @property {Record<string, unknown>} [parameters]  JSON schema of its arguments.
 * @property {boolean | null} [strict]  With false, the arguments of a call that must be made are any JSON
 *   object, and need not follow the schema.
 */

/**
 * The form of an answer: any text, any JSON object, or JSON of a schema.
 * @typedef {object} ChatResponseFormat
 * @property {string} type  'text', 'json_object' or 'json_schema'.
 * @property {ChatSchema} [json_schema]  The schema, for 'json_schema'.
 */

/**
 * A JSON schema with a name.
 * @typedef {object} ChatSchema
 * @property {string} name  Is not used.
 * @property {string} [description]  Is not used.
 * @property {Record<string, unknown>} [schema]  The schema.
 * @property {boolean | null} [strict]  Is not used: answers follow the schema always.
 */

/**
 * The function that must be called.
 * @typedef {object} ChatToolChoice
 * @property {string} type  'function'.
 * @property {FunctionName} [function]  The function.
 */

/**
 * @typedef {object} FunctionName
 * @property {string} name  Name of the function.
 */

/**
 * @typedef {object} ChatStreamOptions
 * @property {boolean} [include_usage]  Send a last chunk with the numbers of tokens.
 * @property {boolean} [include_obfuscation]  Is not used.
 */

/**
 * @typedef {object} ChatRequest
 * @property {readonly ChatMessage[]} messages  The conversation so far.
 * @property {string} [model]  Name of the model. There is only one, so it may be any text.
 * @property {boolean | null} [stream]  Whether the answer comes in chunks, as it is written.
 * @property {ChatStreamOptions | null} [stream_options]  What chunks have beside the answer.
 * @property {number | null} [max_completion_tokens]  The most tokens of the answer, thoughts included.
 *   Default: until the context is full.
 * @property {number | null} [max_tokens]  Older name of max_completion_tokens.
 * @property {string | readonly string[] | null} [stop]  Texts that end the answer; they are no part of
 *   it.
 * @property {number | null} [seed]  Seed of the random numbers; the same seed gives the same answer.
 * @property {number | null} [temperature]  How freely tokens are chosen; 0 always takes the most
 *   likely one. Default 0.8.
 * @property {number | null} [top_p]  Keep the smallest set of tokens whose probabilities add up to
 *   this. Default 0.95.
 * @property {number | null} [top_k]  Keep the K most likely tokens; 0 keeps all. Default 40. Not in
 *   OpenAI's API.
 * @property {number | null} [min_p]  Drop tokens below min_p times the top probability. Default 0.05.
 *   Not in OpenAI's API.
 * @property {number | null} [frequency_penalty]  Subtracted from the logit of a token for each time that
 *   it is among the last 64 tokens, from -2 to 2. Default 0.
 * @property {number | null} [presence_penalty]  Subtracted from the logits of the tokens that are among
 *   the last 64, from -2 to 2. Default 0.
 * @property {number | null} [repeat_penalty]  Values over 1 make repetition less likely. Default 1. Not
 *   in OpenAI's API.
 * @property {boolean | null} [logprobs]  Whether to report the log probability of each token.
 * @property {number | null} [top_logprobs]  How many of the most likely tokens to report with each; needs
 *   `logprobs: true`.
 * @property {readonly ChatTool[]} [tools]  Functions that the model may call.
 * @property {'none' | 'auto' | 'required' | ChatToolChoice} [tool_choice]  Whether the model calls a
 *   function: 'none', 'auto' (default), 'required', or a certain one. The last two need a model whose
 *   format of calls is known by its template; then the answer is one call, whose arguments follow the
 *   schema of the function.
 * @property {ChatResponseFormat} [response_format]  The form of the answer. JSON that is cut, with the
 *   finish_reason 'length', is incomplete.
 * @property {boolean} [parallel_tool_calls]  Whether an answer may have several calls. Default true.
 * @property {string | null} [reasoning_effort]  'none' asks the template for an answer without thoughts
 *   (enable_thinking: false); other values are handed to the template.
 * @property {Record<string, unknown>} [chat_template_kwargs]  Further variables of the template. Not in
 *   OpenAI's API.
 */

/**
 * A token with its log probability.
 * @typedef {object} ChanceOfToken
 * @property {string} token  Text of the token.
 * @property {number[] | null} bytes  Its bytes: a character may be spread over several tokens.
 * @property {number} logprob  Natural logarithm of its probability.
 */

/**
 * A token of an answer, with its log probability and those of the most likely tokens.
 * @typedef {object} ChatLogprob
 * @property {string} token  Text of the token.
 * @property {number[] | null} bytes  Its bytes: a character may be spread over several tokens.
 * @property {number} logprob  Natural logarithm of its probability.
 * @property {ChanceOfToken[]} top_logprobs  The most likely tokens, the likeliest first.
 */

/**
 * @typedef {object} ChatLogprobs
 * @property {ChatLogprob[]} content  One for each token of the answer.
 * @property {null} refusal  The library has no refusals.
 */

/**
 * @typedef {object} ChatUsage
 * @property {number} prompt_tokens  Tokens of the prompt.
 * @property {number} completion_tokens  Tokens of the answer.
 * @property {number} total_tokens  Both.
 * @property {PromptTokens} prompt_tokens_details  More about the prompt's.
 */

/**
 * @typedef {object} PromptTokens
 * @property {number} cached_tokens  Tokens that did not have to be computed again.
 */

/**
 * Why an answer ended: 'stop' at its own end or a stop text, 'length' after max_tokens or with a full
 * context, 'tool_calls' if it calls functions.
 * @typedef {'stop' | 'length' | 'tool_calls'} FinishReason
 */

/**
 * @typedef {object} AnsweredCall
 * @property {string} id  Identifier of the call: nine letters and digits, as Mistral's templates want
 *   it.
 * @property {'function'} type  Kind of the call.
 * @property {CalledFunction} function  The function, and its arguments.
 */

/**
 * @typedef {object} AnswerMessage
 * @property {'assistant'} role  The assistant answers.
 * @property {string | null} content  The text; null if there is none beside calls.
 * @property {null} refusal  The library has no refusals.
 * @property {string} [reasoning]  Thoughts before the answer, if there are any.
 * @property {AnsweredCall[]} [tool_calls]  Calls, if there are any.
 */

/**
 * @typedef {object} ChatCompletion
 * @property {string} id  Identifier of the answer.
 * @property {'chat.completion'} object  Kind of the object.
 * @property {number} created  When it was asked for, in seconds since 1970.
 * @property {string} model  Name of the model.
 * @property {ChatChoice[]} choices  The answer, in a list of one.
 * @property {ChatUsage} usage  Numbers of tokens.
 */

/**
 * @typedef {object} ChatChoice
 * @property {number} index  0.
 * @property {AnswerMessage} message  The answer.
 * @property {FinishReason} finish_reason  Why it ended.
 * @property {ChatLogprobs | null} logprobs  Log probabilities of its tokens, if they were asked for.
 */

/**
 * @typedef {object} ChatDelta
 * @property {'assistant'} [role]  In the first chunk.
 * @property {string | null} [content]  More of the text.
 * @property {string} [reasoning]  More of the thoughts.
 * @property {CallDelta[]} [tool_calls]  A call, once it is complete.
 */

/**
 * @typedef {object} CallDelta
 * @property {number} index  Number of the call in the answer, counted from 0.
 * @property {string} id  Identifier of the call.
 * @property {'function'} type  Kind of the call.
 * @property {CalledFunction} function  The function, and its arguments.
 */

/**
 * @typedef {object} ChatChunk
 * @property {string} id  Identifier of the answer, the same in all its chunks.
 * @property {'chat.completion.chunk'} object  Kind of the object.
 * @property {number} created  When it was asked for, in seconds since 1970.
 * @property {string} model  Name of the model.
 * @property {ChunkChoice[]} choices  What is new, in a list of one; an empty list in the chunk with the
 *   usage.
 * @property {ChatUsage | null} [usage]  Numbers of tokens, in the last chunk; only with
 *   stream_options.include_usage.
 */

/**
 * @typedef {object} ChunkChoice
 * @property {number} index  0.
 * @property {ChatDelta} delta  What is new.
 * @property {FinishReason | null} finish_reason  Why the answer ended, in the last chunk with a choice.
 * @property {ChatLogprobs | null} logprobs  Log probabilities of the tokens since the chunk before, if
 *   they were asked for.
 */

/**
 * @typedef {object} EmbeddingRequest
 * @property {string | readonly string[]} input  A text, or several.
 * @property {string} [model]  Name of the model. There is only one, so it may be any text.
 * @property {'float' | 'base64'} [encoding_format]  Numbers (default), or the bytes of 32-bit floats as
 *   base64.
 * @property {number} [dimensions]  Keep so many values from the start of each vector.
 * @property {string} [user]  Is not used.
 */

/**
 * @typedef {object} EmbeddingResponse
 * @property {'list'} object  Kind of the object.
 * @property {string} model  Name of the model.
 * @property {EmbeddingItem[]} data  A vector for each text.
 * @property {EmbeddingUsage} usage  Tokens of all texts.
 */

/**
 * @typedef {object} EmbeddingItem
 * @property {'embedding'} object  Kind of the object.
 * @property {number} index  Number of the text, counted from 0.
 * @property {number[]} embedding  The vector; with encoding_format 'base64' a text instead.
 */

/**
 * @typedef {object} EmbeddingUsage
 * @property {number} prompt_tokens  Tokens of all texts.
 * @property {number} total_tokens  The same.
 */

/**
 * @typedef {object} ModelEntry
 * @property {string} id  Name of the model.
 * @property {'model'} object  Kind of the object.
 * @property {number} created  When it was made available, in seconds since 1970.
 * @property {string} owned_by  'local'.
 */

/**
 * @typedef {object} ModelList
 * @property {'list'} object  Kind of the object.
 * @property {ModelEntry[]} data  The one model.
 */

/**
 * Answers a conversation: in chunks if the request has `stream: true`, else as a whole.
 * @typedef {{
 *   (request: ChatRequest & { stream: true }, options?: RequestOptions):
 *     Promise<import('./answer.js').ChatStream>;
 *   (request: ChatRequest & { stream?: false | null }, options?: RequestOptions):
 *     Promise<ChatCompletion>;
 *   (request: ChatRequest, options?: RequestOptions):
 *     Promise<ChatCompletion | import('./answer.js').ChatStream>;
 * }} CreateChat
 */

/**
 * @typedef {object} RequestOptions
 * @property {AbortSignal | null | undefined} [signal]  Aborts the call: it rejects with the signal's
 *   reason.
 */

export {};
