import { parse } from 'yaml'
import { createPolicy, type Policy } from './api/policy.ts'
import { StartRefused } from './errors.ts'
import { readTextFile } from './runtime/files.ts'
import type { Log } from './runtime/log.ts'

/** The rules of the API, with what the file changes of them. Throws StartRefused for a file that cannot be used. */
export function policyOf(file: string | null, log: Pick<Log, 'warn'>): Policy {
  if (file === null) return createPolicy()
  try {
    const text = readTextFile(file)
    if (text === null) throw new Error('it is not there')
    const rules: unknown = parse(text) ?? {}
    if (typeof rules !== 'object' || Array.isArray(rules)) throw new Error('it has no rules by name')
    const policy = createPolicy(rules as Record<string, unknown>)
    for (const warning of policy.warnings) log.warn({ file }, warning)
    return policy
  } catch (error) {
    throw new StartRefused(`policy_file ${file}: ${(error as Error).message}`)
  }
}
