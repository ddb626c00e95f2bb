import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { type Certificates, makeCertificates } from '../tools/certificates.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { requireCommand } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'

let certificates: Certificates
const started: Collie[] = []

beforeAll(async () => {
  certificates = await makeCertificates()
})
afterEach(async () => {
  for (const collie of started.splice(0).reverse()) await collie.dispose()
})
afterAll(() => certificates.remove())

async function create(certificate: string): Promise<Collie> {
  const { key, authorities } = certificates.server
  const files = [`--nbd-tls-cert=${certificate}`, `--nbd-tls-key=${key}`, `--nbd-tls-ca=${authorities}`]
  const collie = await Collie.create('--nbd-tls=required', ...files)
  started.push(collie)
  return collie
}

const withNbdinfo = requireCommand('nbdinfo', 'libnbd-bin')

withNbdinfo(
  'an attachment of a gateway that wants TLS tells a URI that clients with a certificate can use',
  async () => {
    const collie = await create(certificates.server.certificate)
    await collie.start()
    const cinder = new CinderApi(`${collie.dataDir}/openrc`)
    const volumeId = await cinder.createVolume({ name: 'secret' })
    await cinder.until('volume', volumeId, 'available')
    const { uri } = await cinder.attach(volumeId)
    expect(uri).toMatch(/^nbds:/)
    const size = await runCommand(['nbdinfo', '--size', `${uri}?tls-certificates=${certificates.trusted}`])
    expect(size).toBe(String(1024 ** 3))
    await expect(runCommand(['nbdinfo', '--size', uri.replace('nbds', 'nbd')])).rejects.toThrow()
  },
)

withNbdinfo('a certificate that is not there ends the start, with the settings that name it', async () => {
  const collie = await create('/nowhere/cert.pem')
  await expect(collie.start()).rejects.toThrow(
    /nbd_tls_cert, nbd_tls_key, nbd_tls_ca: \/nowhere\/cert.pem is not there/,
  )
})
