// @grafana/data in Node. The package is made for browsers.
import { createRequire } from 'node:module';

globalThis.window = globalThis;
Object.defineProperty(globalThis, 'navigator', { value: { language: 'en-US', languages: ['en-US'] }, configurable: true });
export const grafana = createRequire(import.meta.url)('@grafana/data');
