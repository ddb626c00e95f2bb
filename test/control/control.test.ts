import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MessageChannel } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { ControlClient } from '../../src/control/client.ts'
import { type Carrier, ControlError } from '../../src/control/messages.ts'
import type { Handlers } from '../../src/control/methods.ts'
import { portCarrier } from '../../src/control/port-carrier.ts'
import { type ControlServer, type ServeOptions, serveControl } from '../../src/control/serve.ts'
import { listenControl, socketCarrier } from '../../src/control/socket-carrier.ts'
import { StoreError } from '../../src/errors.ts'
import { type Connection, systemNetwork } from '../../src/runtime/network.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function temporarySocket(): string {
  const directory = mkdtempSync(join(tmpdir(), 'collie-'))
  cleanups.push(() => rmSync(directory, { recursive: true }))
  return join(directory, 'control.sock')
}

/** Both ends of one channel. */
const CHANNELS: Record<string, () => Promise<[Carrier, Carrier]>> = {
  'a pair of ports': async () => {
    const { port1, port2 } = new MessageChannel()
    cleanups.push(() => port1.close())
    return [portCarrier(port1), portCarrier(port2)]
  },
  'a socket': async () => {
    const path = temporarySocket()
    const accepted = new Promise<Connection>((resolve) => {
      void systemNetwork.listen(path, resolve).then((listener) => cleanups.push(() => listener.close()))
    })
    const connection = await connectSoon(path)
    const other = await accepted
    for (const each of [connection, other]) cleanups.push(() => each.destroy())
    return [socketCarrier(connection), socketCarrier(other)]
  },
}

async function connectSoon(path: string): Promise<Connection> {
  for (;;) {
    const connection = await systemNetwork.connect(path).catch(() => null)
    if (connection !== null) return connection
  }
}

const info = { pid: 1, version: '0.1.0', data_dir: 'data', roles: ['store'], addresses: { sheep: '127.0.0.1:7000' } }
const onDefect = (error: unknown) => expect.unreachable(String(error))

describe.each(Object.entries(CHANNELS))('control over %s', (_, channel) => {
  async function connect(
    handlers: Handlers,
    options: ServeOptions = { onDefect },
  ): Promise<[ControlClient, ControlServer, Carrier]> {
    const [near, far] = await channel()
    return [new ControlClient(near), serveControl(far, handlers, options), far]
  }

  it('answers calls with what the handler resolves with', async () => {
    const drained: string[] = []
    const [client] = await connect({
      info: async () => info,
      export_drained: async ({ attachment_id }) => {
        drained.push(attachment_id)
        return {}
      },
    })
    expect(await client.call('info', {})).toEqual(info)
    expect(await client.call('export_drained', { attachment_id: 'a1' })).toEqual({})
    expect(drained).toEqual(['a1'])
  })

  it('keeps calls apart, whichever ends first', async () => {
    const release = new Map<string, () => void>()
    const [client] = await connect({
      export_drained: ({ attachment_id }) =>
        new Promise((resolve) => {
          release.set(attachment_id, () => resolve({}))
          if (attachment_id === 'third') release.get('third')?.()
        }),
    })
    const order: string[] = []
    const [first, second, third] = ['first', 'second', 'third'].map(async (attachment_id) => {
      await client.call('export_drained', { attachment_id })
      order.push(attachment_id)
    })
    await third
    release.get('second')?.()
    await second
    release.get('first')?.()
    await first
    expect(order).toEqual(['third', 'second', 'first'])
  })

  it('carries symbolic failures across', async () => {
    const [client] = await connect({
      audit: () => Promise.reject(new StoreError('DiskFailed', 'sda')),
    })
    await expect(client.call('audit', {})).rejects.toMatchObject({
      name: 'ControlError',
      code: 'DiskFailed',
      message: 'the disk failed: sda',
    })
  })

  it('tells nothing about a defect but that there was one', async () => {
    const defects: unknown[] = []
    const [client] = await connect(
      { audit: () => Promise.reject(new TypeError('secret detail')) },
      { onDefect: (error) => void defects.push(error) },
    )
    const error = await client.call('audit', {}).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'Internal' })
    expect(String(error)).not.toContain('secret')
    expect(String(defects[0])).toContain('secret detail')
  })

  it('says which method is missing on this side', async () => {
    const [client] = await connect({})
    await expect(client.call('vdi_list', {})).rejects.toMatchObject({ code: 'UnknownMethod' })
  })

  it('checks parameters and results', async () => {
    const [client] = await connect({
      export_drained: () => Promise.resolve({}),
      info: () => Promise.resolve({ ...info, pid: 'one' } as never),
    })
    await expect(client.call('export_drained', {} as never)).rejects.toMatchObject({ code: 'InvalidMessage' })
    await expect(client.call('info', {})).rejects.toMatchObject({ code: 'InvalidMessage' })
  })

  it('delivers events', async () => {
    const [client, server] = await connect({})
    const reason = await new Promise((resolve) => {
      client.on('failed', (event) => resolve(event.reason))
      server.emit('failed', { reason: 'the disk failed' })
    })
    expect(reason).toBe('the disk failed')
  })

  it('rejects calls that wait, and those that come, when the other side is lost', async () => {
    const [client, , far] = await connect({ ping: () => new Promise(() => {}) })
    const waiting = client.call('ping', {})
    far.close()
    await expect(waiting).rejects.toBeInstanceOf(ControlError)
    await expect(waiting).rejects.toMatchObject({ code: 'Disconnected' })
    await expect(client.call('ping', {})).rejects.toMatchObject({ code: 'Disconnected' })
  })

  it('gives up on another side that speaks something else', async () => {
    const [near, far] = await channel()
    const client = new ControlClient(near)
    const waiting = client.call('ping', {})
    far.send({ hello: 'world' } as never)
    await expect(waiting).rejects.toMatchObject({
      code: 'Disconnected',
      message: expect.stringContaining('does not speak'),
    })
  })
})

describe('the control socket', () => {
  it('serves several clients', async () => {
    const path = temporarySocket()
    const listener = await listenControl(systemNetwork, path, { info: async () => info }, { onDefect })
    cleanups.push(() => listener.close())
    const clients = await Promise.all(
      [1, 2, 3].map(async () => new ControlClient(socketCarrier(await systemNetwork.connect(path)))),
    )
    cleanups.push(() => {
      for (const client of clients) client.close()
    })
    for (const client of clients) expect(await client.call('info', {})).toEqual(info)
  })

  it('reads messages however the stream is cut, and text in any language', async () => {
    const [client, far] = await CHANNELS['a socket']!()
    const seen = new Promise((resolve) => far.onMessage(resolve))
    client.send({ event: 'failed', data: { reason: 'Zürich, 東京'.repeat(40_000) } })
    expect(await seen).toEqual({ event: 'failed', data: { reason: 'Zürich, 東京'.repeat(40_000) } })
  })

  it.each([
    ['is not JSON', 'hello\n'],
    ['is no request', '{"id":1,"result":{}}\n'],
    ['never ends', 'x'.repeat(2000)],
  ])('cuts off a client whose message %s', async (_, bytes) => {
    const path = temporarySocket()
    const listener = await systemNetwork.listen(path, (connection) => {
      serveControl(socketCarrier(connection, 1000), {}, { onDefect })
    })
    cleanups.push(() => listener.close())
    const connection = await systemNetwork.connect(path)
    const closed = new Promise<void>((resolve) => connection.onClose(resolve))
    connection.onData(() => expect.unreachable())
    connection.write([Buffer.from(bytes)])
    await closed
  })
})
