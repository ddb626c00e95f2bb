import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { openBackupTarget } from '../../../src/app-backup-target.ts'
import { loadConfig } from '../../../src/config.ts'
import { type Certificates, makeCertificates } from '../../tools/certificates.ts'
import { commandExists } from '../../tools/require-command.ts'
import {
  BUCKET,
  openS3Target,
  S3_REGION,
  SWIFT_PASSWORD,
  SWIFT_USER,
  sharedSwift,
  withSwift,
} from '../../tools/swift.ts'
import { startTlsFront, type TlsFront } from '../../tools/tls-front.ts'

/** Object stores over https, by their settings: whom the process believes is said by `cafile` of each. */

let own: Certificates
let other: Certificates
let front: TlsFront

beforeAll(async () => {
  if (!commandExists('swift-proxy-server')) return
  ;[own, other] = await Promise.all([makeCertificates(), makeCertificates()])
  front = await startTlsFront((await sharedSwift()).url, own.server)
  await (await openS3Target()).close() // makes the bucket
})
afterAll(() => {
  front?.close()
  own?.remove()
  other?.remove()
})

const KINDS = {
  backup_s3: () => ({
    'backup-target': 's3',
    'backup-s3-endpoint': front.url,
    'backup-s3-region': S3_REGION,
    'backup-s3-bucket': BUCKET,
    'backup-s3-access-key': SWIFT_USER,
    'backup-s3-secret-key': SWIFT_PASSWORD,
  }),
  backup_swift: () => ({
    'backup-target': 'swift',
    'backup-swift-auth': 'v1',
    'backup-swift-auth-url': `${front.url}auth/v1.0`,
    'backup-swift-url': `${front.url}v1/AUTH_test`, // Swift does not know of what is in front
    'backup-swift-username': SWIFT_USER,
    'backup-swift-password': SWIFT_PASSWORD,
  }),
}

async function open(group: keyof typeof KINDS, cafile: string | null) {
  const flags: Record<string, string> = { ...KINDS[group]() }
  if (cafile !== null) flags[`${group.replace('_', '-')}-cafile`] = cafile
  const argv = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`)
  const target = await openBackupTarget(loadConfig({ argv, env: {}, readFile: () => '' }).config)
  onTestFinished(() => target.close())
  return target
}

for (const group of ['backup_s3', 'backup_swift'] as const) {
  withSwift(`${group}.cafile lets a store be believed that nobody else vouches for`, async () => {
    const target = await open(group, own.server.authorities)
    await target.put('cloud/one', Buffer.from('backup'))
    expect(String(await target.get('cloud/one'))).toBe('backup')
    await target.remove('cloud/one')
  })

  withSwift(`without the right ${group}.cafile the store is not believed, and the reason names it`, async () => {
    const setting = `${group}.cafile`
    await expect((await open(group, null)).list('cloud')).rejects.toThrow(`${setting} names no other`)
    const wrong = await open(group, other.server.authorities)
    await expect(wrong.list('cloud')).rejects.toThrow(`not signed by one of ${setting}`)
    await expect(open(group, '/nowhere/ca.pem')).rejects.toThrow(`${setting}: /nowhere/ca.pem is not there`)
  })
}
