import { readFileSync } from 'node:fs'

export const SAMPLES = new URL('./samples/', import.meta.url)

/** A sample of upstream's API reference. */
export function sample(path: string) {
  return JSON.parse(readFileSync(new URL(path, SAMPLES), 'utf8'))
}

export const keys = (value: object) => Object.keys(value).sort()
