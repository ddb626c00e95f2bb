import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { ImageService } from '../../src/services/images/image-service.ts'
import { Collie } from './collie.ts'
import { sharedGlance } from './glance.ts'
import { Keystone } from './keystone.ts'
import { LIBVIRT_PROGRAMS, Libvirt } from './libvirt.ts'
import { NOVA_PROGRAMS, Nova } from './nova.ts'
import { commandExists, testUnless } from './require-command.ts'
import { Started } from './started.ts'

/**
 * A cloud with servers: Debian's Keystone, Glance and Nova, and a Collie with two stores that Nova finds in the catalog as block
 * storage and that tells Nova what happens to volumes in use.
 */

const PROGRAMS = { 'keystone-manage': 'keystone', 'glance-api': 'glance-api', ...NOVA_PROGRAMS }
const missingOf = (programs: Record<string, string>): string | false => {
  const missing = Object.entries(programs).flatMap(([program, name]) => (commandExists(program) ? [] : [name]))
  return missing.length > 0 && `apt-get install ${[...new Set(missing)].join(' ')}`
}
const missing = missingOf(PROGRAMS)
const missingForMachines = missingOf({ ...PROGRAMS, ...LIBVIRT_PROGRAMS })
export const withComputeCloud = testUnless(missing)
/** Servers are machines. */
export const withMachines = testUnless(missingForMachines)

/** The backends, each a store of its own, and a volume type for each that has its name; `anywhere` may be on both, `shared` is for several servers, `secret` is encrypted. */
export const BACKENDS = ['one', 'two'] as const
/** Of the images that servers begin with. */
export const IMAGE_BYTES = 1024 * 1024

const MICROVERSIONS = { compute: '2.93', volume: '3.70' }
const POLL_MS = 200
const SETTLE_MS = 60_000

export interface Answer {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: documents of which a test knows what is in them
  document: any
}

/** One service as one account sees it. */
export class ServiceApi {
  readonly #kind: keyof typeof MICROVERSIONS
  readonly #url: string
  readonly #token: string

  constructor(kind: keyof typeof MICROVERSIONS, url: string, token: string) {
    this.#kind = kind
    this.#url = url
    this.#token = token
  }

  /** The answer, whatever it is. */
  async ask(method: string, route: string, body?: unknown): Promise<Answer> {
    const headers = {
      'content-type': 'application/json',
      'x-auth-token': this.#token,
      'openstack-api-version': `${this.#kind} ${MICROVERSIONS[this.#kind]}`,
    }
    const sent = body === undefined ? {} : { body: JSON.stringify(body) }
    const answer = await fetch(this.#url + route, { method, headers, ...sent })
    const text = await answer.text()
    return { status: answer.status, document: text === '' ? null : JSON.parse(text) }
  }

  /** The document of an answer that is no error. */
  async request(method: string, route: string, body?: unknown): Promise<Answer['document']> {
    const { status, document } = await this.ask(method, route, body)
    if (status >= 400) throw new Error(`${method} ${route}: ${status} ${JSON.stringify(document)}`)
    return document
  }
}

export interface Clients {
  compute: ServiceApi
  volume: ServiceApi
}

export class ComputeCloud {
  readonly keystone: Keystone
  readonly nova: Nova
  /** Two images of random bytes. */
  readonly images: readonly { id: string; bytes: Buffer }[]
  /** Of no account: asked directly. */
  readonly imageService: ImageService
  /** Each a process; the first one serves the API. */
  readonly stores: readonly [Collie, Collie]
  /** Under which the servers are, where they are machines. */
  readonly libvirt: Libvirt | null
  readonly #started: Started

  private constructor(
    parts: Pick<ComputeCloud, 'keystone' | 'nova' | 'images' | 'imageService' | 'stores' | 'libvirt'>,
    started: Started,
  ) {
    this.keystone = parts.keystone
    this.nova = parts.nova
    this.images = parts.images
    this.imageService = parts.imageService
    this.stores = parts.stores
    this.libvirt = parts.libvirt
    this.#started = started
  }

  /** With an administrator `admin`, and a member `demo` in a project of that name. Null where programs are missing. */
  static async start({ hasMachines = false } = {}): Promise<ComputeCloud | null> {
    if (hasMachines ? missingForMachines : missing) return null
    const started = new Started()
    try {
      const keystone = started.keep(await startKeystone())
      const glance = await sharedGlance()
      await keystone.register('image', 'glance', glance.url)
      const stores = await startStores(keystone, glance.url, started)
      const libvirt = hasMachines ? started.keep(await Libvirt.start()) : null
      const nova = started.keep(await Nova.start(keystone, 'nova', libvirt))
      const images = [await addImage(glance.images, 'first'), await addImage(glance.images, 'second')]
      const cloud = new ComputeCloud({ keystone, stores, nova, images, imageService: glance.images, libvirt }, started)
      await cloud.#furnish()
      return cloud
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  get collie(): Collie {
    return this.stores[0]
  }

  async clients(user: string, project = user): Promise<Clients> {
    const token = await this.keystone.logIn(user, project)
    return {
      compute: new ServiceApi('compute', this.nova.url, token),
      volume: new ServiceApi('volume', this.collie.info.addresses.api!, token),
    }
  }

  async stop(): Promise<void> {
    await this.#started.stop()
  }

  async #furnish(): Promise<void> {
    const { compute, volume } = await this.clients('admin')
    await compute.request('POST', '/flavors', { flavor: { id: '1', name: 'small', ram: 64, vcpus: 1, disk: 1 } })
    for (const name of BACKENDS) {
      await volume.request('POST', '/types', { volume_type: { name, extra_specs: { volume_backend_name: name } } })
    }
    await volume.request('POST', '/types', { volume_type: { name: 'anywhere' } })
    const extra_specs = { volume_backend_name: BACKENDS[0], multiattach: '<is> True' }
    await volume.request('POST', '/types', { volume_type: { name: 'shared', extra_specs } })
    const secret = { name: 'secret', extra_specs: { volume_backend_name: BACKENDS[0] } }
    const { volume_type } = await volume.request('POST', '/types', { volume_type: secret })
    const encryption = { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' }
    await volume.request('POST', `/types/${volume_type.id}/encryption`, { encryption })
  }
}

async function startKeystone(): Promise<Keystone> {
  const keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  for (const name of ['cinder', 'nova']) await keystone.createUser(name, service, ['service', 'admin'])
  await keystone.createUser('demo', await keystone.createProject('demo'), ['member', 'reader'])
  return keystone
}

async function startStores(keystone: Keystone, imageUrl: string, started: Started): Promise<[Collie, Collie]> {
  const start = async (...flags: string[]) => {
    const collie = await Collie.create(...flags)
    started.onStop(() => collie.dispose())
    await collie.start()
    return collie
  }
  const second = await start('--roles=store,gateway')
  const first = await start(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    '--keystone-timeout-seconds=60', // it answers one request at a time
    `--compute-service-auth-url=${keystone.url}`,
    `--compute-service-password=${keystone.password}`,
    `--image-service-url=${imageUrl}`,
    `--backends=${JSON.stringify([{ name: BACKENDS[0] }, { name: BACKENDS[1], data_dir: second.dataDir }])}`,
  )
  const { api } = first.info.addresses
  await keystone.register('volumev3', 'cinderv3', `${api}/$(project_id)s`)
  await keystone.register('key-manager', 'collie-keys', api!.replace(/v3$/, 'key-manager'))
  return [first, second]
}

async function addImage(images: ImageService, name: string): Promise<{ id: string; bytes: Buffer }> {
  const draft = { diskFormat: 'raw', containerFormat: 'bare', visibility: null, isProtected: null, properties: {} }
  const bytes = randomBytes(IMAGE_BYTES)
  const { id } = await images.create('', { name, ...draft })
  const upload = images.upload('', id, bytes.length)
  await upload.write(bytes)
  await upload.finish()
  return { id, bytes }
}

/** Asks until the answer is enough, and resolves with it. */
export async function until<T>(ask: () => Promise<T>, isEnough: (answer: T) => boolean): Promise<T> {
  for (const deadline = Date.now() + SETTLE_MS; ; await pause(POLL_MS)) {
    const answer = await ask()
    if (isEnough(answer)) return answer
    if (Date.now() > deadline) throw new Error(`after ${SETTLE_MS} ms still ${JSON.stringify(answer)}`)
  }
}
