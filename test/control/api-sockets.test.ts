import { mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { connectApi, listenAsApi } from '../../src/control/api-sockets.ts'
import type { Handlers } from '../../src/control/methods.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { systemRandom } from '../../src/runtime/random.ts'

function newDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-api-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A process that tells its name as that of the only volume. */
async function startApi(dataDir: string, name: string) {
  const handlers: Handlers = {
    ping: async () => ({}),
    volume_list: async () => ({
      volumes: [
        {
          id: name,
          name,
          project_id: 'p',
          status: 'available',
          reason: null,
          size_gib: 1,
          volume_type: 't',
          host: null,
          created_at: '2026-01-01T00:00:00.000000',
          updated_at: null,
        },
      ],
    }),
  }
  const onDefect = (error: unknown) => expect.unreachable(String(error))
  const listener = await listenAsApi(systemNetwork, systemRandom, dataDir, handlers, { onDefect })
  onTestFinished(() => listener.close())
  return listener
}

async function asked(dataDir: string): Promise<string | undefined> {
  const client = await connectApi(systemNetwork, dataDir)
  const { volumes } = await client.call('volume_list', { after: null, limit: 1, status: null, project_id: null })
  client.close()
  return volumes[0]?.id
}

it('finds one of the processes that live, whichever was started or stopped last', async () => {
  const directory = newDirectory()
  const [a, b] = [await startApi(directory, 'a'), await startApi(directory, 'b')]
  expect(readdirSync(path.join(directory, 'api'))).toHaveLength(2)
  expect(['a', 'b']).toContain(await asked(directory))
  await b.close()
  expect(await asked(directory)).toBe('a')
  await startApi(directory, 'c')
  await a.close()
  expect(await asked(directory)).toBe('c')
})

it('says that there is none', async () => {
  const directory = newDirectory()
  await expect(asked(directory)).rejects.toMatchObject({ code: 'Disconnected' })
  await (await startApi(directory, 'a')).close()
  await expect(asked(directory)).rejects.toMatchObject({ code: 'Disconnected' })
})

it('passes over one that stands still, which takes connections and never answers', async () => {
  const directory = newDirectory()
  await startApi(directory, 'a')
  const still = net.createServer({ pauseOnConnect: true })
  await new Promise<void>((resolve) => still.listen(path.join(directory, 'api', 'still.sock'), resolve))
  const connections: net.Socket[] = []
  still.on('connection', (connection) => connections.push(connection))
  onTestFinished(() => {
    for (const connection of connections) connection.destroy()
    still.close()
  })
  expect(await asked(directory)).toBe('a')
})

it('takes away what a killed process left, and nothing else', async () => {
  const directory = newDirectory()
  const living = path.basename((await startApi(directory, 'a')).address)
  // A socket file without a listener: the kernel keeps the file when its process is killed.
  const dead = path.join(directory, 'api', 'dead.sock')
  const kept = path.join(directory, 'kept')
  const killed = net.createServer()
  await new Promise<void>((resolve) => killed.listen(kept, resolve))
  renameSync(kept, dead) // so that closing does not remove it
  await new Promise((resolve) => killed.close(resolve))
  expect(readdirSync(path.join(directory, 'api'))).toContain('dead.sock')
  expect(await asked(directory)).toBe('a')
  const started = path.basename((await startApi(directory, 'b')).address)
  expect(readdirSync(path.join(directory, 'api')).sort()).toEqual([living, started].sort())
})
