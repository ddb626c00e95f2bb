import BetterSqlite3 from 'better-sqlite3'

/** All pages in one step: a copy made bit by bit begins anew whenever another process writes. Readers hold nobody up. */
const PAGES_AT_ONCE = 0x7fffffff

/**
 * Copies a SQLite database as it is at one moment into a new file, while others use it, and proves the copy. The target is a
 * whole database when it resolves. Not yet synced.
 */
export async function copySqlite(file: string, target: string): Promise<void> {
  const source = new BetterSqlite3(file, { readonly: true, fileMustExist: true })
  try {
    await source.backup(target, { progress: () => PAGES_AT_ONCE })
  } finally {
    source.close()
  }
  const copy = new BetterSqlite3(target)
  try {
    copy.pragma('journal_mode = DELETE') // one file, with nothing beside it
    const problems = copy.pragma('quick_check', { simple: true })
    if (problems !== 'ok') throw new Error(`the copy of ${file} is damaged: ${String(problems)}`)
  } finally {
    copy.close()
  }
}
