import path from 'node:path'
import type { Config } from './config.ts'

/** Whether a backend is the store of the own data directory. */
export function isOwnStore({ data_dir, store, control }: Config['backends'][number], config: Config): boolean {
  const isElsewhere = store !== null || control !== null
  return !isElsewhere && (data_dir === null || path.resolve(data_dir) === path.resolve(config.data_dir))
}
