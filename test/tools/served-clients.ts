import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApiServer } from '../../src/api/server.ts'
import { type Db, openDatabase } from '../../src/db/database.ts'
import { createTokenVault } from '../../src/db/tokens.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import { ensureLocalIdentity } from '../../src/identity/credentials.ts'
import { createLocalIdentity } from '../../src/identity/local.ts'
import { addLocalIdentity } from '../../src/identity/routes.ts'
import { addImageDiscovery } from '../../src/identity/versions.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createServices, type RunningServices } from '../../src/services/create-services.ts'
import { DEFAULT_SETTINGS } from '../../src/services/settings.ts'
import { openBackupTarget } from './backup-target.ts'
import { PythonCommands } from './python-commands.ts'

/** A service that listens, with a volume backend in memory, and OpenStack's clients with the credentials of its `openrc`. */
export interface ServedClients {
  services: RunningServices
  db: Db
  clients: PythonCommands
  close(): Promise<void>
}

export async function serveClients(): Promise<ServedClients> {
  const dataDir = mkdtempSync(join(tmpdir(), 'collie-clients-'))
  const log = createLog('silent')
  const db = await openDatabase({ file: ':memory:' })
  const services = createServices({
    db,
    backupTarget: await openBackupTarget(),
    backends: [
      { name: 'memory', availabilityZone: 'nova', driver: createMemoryDriver(createMemoryBackend(), systemRandom) },
    ],
    clock: systemClock,
    random: systemRandom,
    log,
    settings: { ...DEFAULT_SETTINGS, hostName: 'test' },
  })
  await services.start()
  const account = await ensureLocalIdentity({ dataDir, baseUrl: 'http://127.0.0.1:1', random: systemRandom, log })
  const vault = createTokenVault(db, systemClock)
  const identity = createLocalIdentity({
    account,
    vault,
    clock: systemClock,
    random: systemRandom,
    publicEndpoint: null,
  })
  const app = createApiServer({
    services,
    authenticator: identity.authenticator,
    log,
    random: systemRandom,
    settings: { publicEndpoint: null },
  })
  addLocalIdentity(app, identity, { publicEndpoint: null, imageUrl: null })
  addImageDiscovery(app, null)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  await ensureLocalIdentity({ dataDir, baseUrl: `http://127.0.0.1:${port}`, random: systemRandom, log })
  const clients = new PythonCommands(readOpenrc(join(dataDir, 'openrc')))
  return {
    services,
    db,
    clients,
    close: async () => {
      await clients.close()
      await app.close()
      await services.stop()
      await db.destroy()
      rmSync(dataDir, { recursive: true })
    },
  }
}

function readOpenrc(path: string): Record<string, string> {
  const lines = readFileSync(path, 'utf8').matchAll(/^export (\w+)=(.*)$/gm)
  return Object.fromEntries([...lines].map(([, name, value]) => [name!, value!]))
}
