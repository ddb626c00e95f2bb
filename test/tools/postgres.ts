import { afterAll, onTestFinished } from 'vitest'
import { openDatabase } from '../../src/db/database.ts'
import { missingPostgres, PostgresServer } from './postgres-server.ts'

/** A PostgreSQL server for the tests of one file, started when first asked for and ended with the file. */

export { missingPostgres, PostgresServer }

/** Whether tests on PostgreSQL run: they do with CI=true even when it is missing, and fail. */
export const runsPostgres = missingPostgres === false || process.env.CI === 'true'

let shared: Promise<PostgresServer> | null = null
let template: Promise<void> | null = null
let databases = 0

/** The server of this test file. */
export function sharedServer(): Promise<PostgresServer> {
  shared ??= PostgresServer.create()
  return shared
}

afterAll(async () => {
  await (await shared?.catch(() => null))?.dispose()
})

/** URL of a database that is gone after the test: empty, or with the schema of this version. */
export async function createPostgresDatabase({ migrated = true } = {}): Promise<string> {
  const server = await sharedServer()
  if (migrated) {
    template ??= makeTemplate(server)
    await template
  }
  const name = `test_${++databases}`
  const from = migrated ? 'migrated' : 'template0'
  // To copy the files takes less than to copy through the log, which is for servers that others use meanwhile.
  await server.execute(`create database ${name} template ${from} strategy file_copy`)
  onTestFinished(() => server.execute(`drop database ${name} with (force)`))
  return server.url(name)
}

async function makeTemplate(server: PostgresServer): Promise<void> {
  await server.execute('create database migrated')
  await (await openDatabase({ url: server.url('migrated') })).destroy()
}
