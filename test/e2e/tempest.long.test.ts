import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import type { ImageService } from '../../src/services/images/image-service.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { sharedGlance } from '../tools/glance.ts'
import { Keystone } from '../tools/keystone.ts'
import { isTempestThere, runTempest, type TempestSettings, withTempest } from '../tools/tempest.ts'

/** Tempest's tests of block storage, and those of Cinder's plug-in for it, beside Debian's Keystone and Glance. */

vi.setConfig({ testTimeout: 3_600_000, hookTimeout: 600_000 })

const IMAGE_BYTES = 1024 * 1024
/** The Glance of these tests asks for none. */
const NO_TOKEN = ''

let keystone: Keystone | undefined
let collie: Collie | undefined
let settings: TempestSettings
const directory = mkdtempSync(path.join(tmpdir(), 'collie-tempest-'))

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (!isTempestThere) return
  const glance = await sharedGlance()
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  const accounts = { admins: ['admin0', 'admin1', 'admin2', 'admin3'], members: ['m0', 'm1', 'm2', 'm3', 'm4', 'm5'] }
  for (const [names, roles] of [
    [accounts.admins, ['admin', 'member', 'reader']],
    [accounts.members, ['member', 'reader']],
  ] as const) {
    for (const name of names) await keystone.createUser(name, await keystone.createProject(name), roles)
  }
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    `--image-service-url=${glance.url}`,
  )
  await collie.start()
  await keystone.register('volumev3', 'cinderv3', `${collie.info.addresses.api}/$(project_id)s`)
  await keystone.register('image', 'glance', glance.url)
  const imageIds = [await addImage(glance.images, 'one'), await addImage(glance.images, 'other')] as const
  settings = { keystoneUrl: keystone.url, password: keystone.password, accounts, imageIds }
})
afterAll(async () => {
  await collie?.dispose()
  await keystone?.stop()
  rmSync(directory, { recursive: true, force: true })
})

async function addImage(images: ImageService, name: string): Promise<string> {
  const draft = { diskFormat: 'raw', containerFormat: 'bare', visibility: null, isProtected: null, properties: {} }
  const { id } = await images.create(NO_TOKEN, { name, ...draft })
  const upload = images.upload(NO_TOKEN, id, IMAGE_BYTES)
  await upload.write(randomBytes(IMAGE_BYTES))
  await upload.finish()
  return id
}

describe('tempest', () => {
  withTempest('finds block storage as it should be', async () => {
    const include = ['^(tempest\\.api\\.volume|cinder_tempest_plugin\\.api)']
    const exclude = ['VolumesBackupsTest\\.test_incremental_backup\\['] // it begins with a server of Nova
    const result = await runTempest(directory, settings, { include, exclude })
    console.log(`tempest: ${result.passed} passed, ${result.skipped.length} skipped, ${result.failed.length} failed`)
    expect(result.failed).toEqual([])
    expect(result.passed).toBe(219)
  })
})
