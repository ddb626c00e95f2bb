import { X509Certificate } from 'node:crypto'
import type net from 'node:net'
import tls from 'node:tls'
import { readTextFile } from './files.ts'

/** What this process shows of itself, and whom it believes. */
export interface TlsIdentity {
  readonly context: tls.SecureContext
  /** Clients need a certificate that one of the authorities has signed. */
  readonly asksForCertificate: boolean
}

/** Files in PEM: the certificate with those between it and the root, its key, and the authorities that clients' are signed by. */
export interface TlsFiles {
  certificate: string
  key: string
  /** Null asks clients for no certificate. */
  authorities: string | null
}

/** Who signs the certificates of the services that are asked over https. */
export interface Authorities {
  /** In PEM, instead of the well-known ones; null for those. */
  readonly certificates: readonly string[] | null
  /** What names their file, for whoever reads that a service is not believed. */
  readonly setting: string
}

/** Null is no file. Throws a TypeError that names the setting when there is nothing in the file to believe. */
export function loadAuthorities(setting: string, file: string | null): Authorities {
  if (file === null) return { certificates: null, setting }
  try {
    const certificates = readPem(file).match(CERTIFICATE) ?? []
    if (certificates.length === 0) throw new Error(`${file} has no certificate in PEM`)
    for (const certificate of certificates) new X509Certificate(certificate) // TLS would pass over what is none
    return { certificates, setting }
  } catch (error) {
    throw new TypeError(`${setting}: ${(error as Error).message}`, { cause: error })
  }
}

/** Why a connection failed; of a certificate that leads to nobody who is believed, which setting says who is. */
export function reasonOf(error: NodeJS.ErrnoException, authorities: Authorities | null): string {
  const reason = error.message || error.name
  if (authorities === null || !SIGNED_BY_OTHERS.has(error.code ?? '')) return reason
  const { certificates, setting } = authorities
  const whose = certificates === null ? `a well-known authority, and ${setting} names no other` : `one of ${setting}`
  return `its certificate is not signed by ${whose}: ${reason}`
}

/** What OpenSSL says of them. */
const SIGNED_BY_OTHERS: ReadonlySet<string> = new Set([
  'CERT_SIGNATURE_FAILURE', // by somebody of the same name
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g

/** Throws an Error that says what is wrong with the files. */
export function loadTlsIdentity({ certificate, key, authorities }: TlsFiles): TlsIdentity {
  const context = tls.createSecureContext({
    cert: readPem(certificate),
    key: readPem(key),
    ...(authorities !== null && { ca: readPem(authorities) }),
  })
  return { context, asksForCertificate: authorities !== null }
}

function readPem(file: string): string {
  const text = readTextFile(file)
  if (text === null) throw new Error(`${file} is not there`)
  return text
}

/** What `tls` does not declare, and its own server uses of the sockets that it makes. */
type ServerSide = tls.TLSSocket & {
  _handle: { verifyError(): Error | undefined } | null
  /** From now on what goes wrong is told as an 'error'. */
  _releaseControl(): boolean
}

/**
 * Goes on in TLS on a connected socket that is not read any more, as its server. Whatever the peer sends from here on has to be TLS. A failed
 * handshake closes the socket, and rejects.
 */
export function secureSocket(socket: net.Socket, { context, asksForCertificate }: TlsIdentity): Promise<tls.TLSSocket> {
  const secured = new tls.TLSSocket(socket, {
    isServer: true,
    secureContext: context,
    requestCert: asksForCertificate,
    rejectUnauthorized: asksForCertificate,
  }) as ServerSide
  secured.disableRenegotiation()
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      secured.destroy()
      reject(error)
    }
    secured.on('_tlsError', fail)
    secured.once('close', () => reject(new Error('the connection ended in the TLS handshake')))
    secured.once('secure', () => {
      // OpenSSL refuses a client without a certificate, and leaves it to us to look at one that nobody vouches for.
      const refusal = asksForCertificate ? secured._handle?.verifyError() : undefined
      if (refusal) return fail(refusal)
      secured._releaseControl()
      resolve(secured)
    })
  })
}
