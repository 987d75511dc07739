'use client';

import { createWorkerLlama } from 'fused-matmul/llama';
import { useEffect, useRef, useState } from 'react';

/** Writes a text with a model that is in the folder `public`. */
export default function Page() {
  const model = useRef(undefined);
  const [text, setText] = useState('');
  const [status, setStatus] = useState('loading');

  useEffect(() => {
    const controller = new AbortController();
    const loading = createWorkerLlama('model.gguf', { signal: controller.signal });
    loading.then(
      (loaded) => {
        model.current = loaded;
        setStatus('ready');
      },
      (error) => controller.signal.aborted || setStatus(error.message),
    );
    return () => {
      controller.abort();
      loading.then((loaded) => loaded.dispose()).catch(() => {});
    };
  }, []);

  async function write() {
    setText('');
    setStatus('writing');
    try {
      const run = model.current.generate('Once upon a time', { maxTokens: 60, temperature: 0 });
      for await (const piece of run) setText((before) => before + piece);
      setStatus('ready');
    } catch (error) {
      setStatus(error.message);
    }
  }

  return (
    <main>
      <button type="button" onClick={write} disabled={status !== 'ready'}>
        Write
      </button>
      <p>{text}</p>
      <p role="status">{status}</p>
    </main>
  );
}
