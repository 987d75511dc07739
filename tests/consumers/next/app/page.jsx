'use client';

import { useEffect, useState } from 'react';
import { program } from '../program.js';

export default function Page() {
  const [text, setText] = useState('');
  useEffect(() => {
    globalThis.outcome = program('model.gguf').then(
      (result) => {
        setText(`${result.nRows} x ${result.nCols} by ${result.info.isa}: ${result.text}`);
        return { result };
      },
      (error) => ({ error: `${error.name}: ${error.message}` }),
    );
  }, []);
  return <p>{text}</p>;
}
