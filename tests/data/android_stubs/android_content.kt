// Android's types without members that examples/android passes on.

package android.content

import java.io.File

open class Context {
    fun getExternalFilesDir(type: String?): File? = TODO()
}
